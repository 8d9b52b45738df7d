"""A real S3 server for tests: SeaweedFS, on loopback, gone with the test session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 60
KEY, READER_KEY, SECRET = "test-key", "test-key-that-only-reads", "test-secret"
ROLES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class S3Server:
    """Where it listens; `environment` is what AWS's tools and pyarrow read."""

    endpoint: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",  # nobody there to ask
        }


@contextmanager
def running_s3_server(folder: Path, bucket: str, ports: Sequence[int] | None = None) -> Iterator[S3Server]:
    """Start the server with a bucket; everything it keeps lies in `folder`. With the same ports it can come back."""
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET}], "actions": actions}
        for key, actions in ((KEY, ["Admin"]), (READER_KEY, ["Read", "List"]))
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    ports = ports or free_ports(2 * len(ROLES))
    options = [f"-{role}.port={ports[2 * i]}" for i, role in enumerate(ROLES)]
    options += [f"-{role}.port.grpc={ports[2 * i + 1]}" for i, role in enumerate(ROLES)]
    options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={folder / 's3.json'}"]
    options += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=64",  # room of deleted objects comes back late, and 8 volumes hold 512 MB
        f"-dir={folder}",
    ]
    weed = Path(sys.executable).parent / "weed"
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([weed, "server", *options], stdout=log, stderr=log, cwd=folder)
    server = S3Server(f"http://127.0.0.1:{ports[2 * ROLES.index('s3')]}", process)
    try:
        wait_until_it_answers(server, folder / "log")
        make_bucket(server, bucket)
        yield server
    finally:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held until the last one is found, so they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def wait_until_it_answers(server: S3Server, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert server.process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        try:
            urllib.request.urlopen(server.endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return  # 403: it answers, and wants credentials
        except OSError:
            time.sleep(0.2)
        else:
            return


def make_bucket(server: S3Server, bucket: str) -> None:
    """In a process of its own: pyarrow keeps the credentials it read first."""
    code = (
        "import sys; from pyarrow import fs\n"
        "s3 = fs.S3FileSystem(endpoint_override=sys.argv[1], allow_bucket_creation=True, region='us-east-1')\n"
        "s3.create_dir(sys.argv[2])"
    )
    environment = {**os.environ, **server.environment}
    subprocess.run([sys.executable, "-c", code, server.endpoint, bucket], env=environment, check=True)
