"""Real secrets in use (S3, MLflow with passwords, a hub's token) on a real cluster: nothing that is left holds one."""

from __future__ import annotations

import gzip
import io
import json
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from tests.cluster_head import ClusterHead
from tests.conftest import Cli
from tests.mlflow_servers import MlflowServer, server_with_passwords
from tests.s3_server import SECRET, S3Server, running_s3_server
from tests.tiny_sets import training_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("nothing_else_to_send")]
USER, PASSWORD, TOKEN = "planted-user", "planted-pass-5b1e0c77", "hf_plantedtoken9d41aa"
SECRETS = {"AWS_SECRET_ACCESS_KEY": SECRET, "MLFLOW_TRACKING_PASSWORD": PASSWORD, "HF_TOKEN": TOKEN}
BUCKET = "secrets"
Left = dict[str, bytes]
"""What was left behind: where, and its bytes, unpacked."""


@dataclass
class Place:
    """A cluster whose nodes know the secrets, and the two servers that want them."""

    head: ClusterHead
    store: fs.S3FileSystem
    mlflow: MlflowServer
    folder: Path

    def submit(self, cli: Cli, *words: str) -> str:
        """Send a job as the docs say; all that was printed here."""
        named = [word for name in SECRETS for word in ("--secret", name)]
        environment = {**self.head.client_environment, **SECRETS, "MLFLOW_TRACKING_USERNAME": USER}
        done = cli(
            "jobs.submit", "--address", self.head.address, *named, "--", *words, env=dict(environment), timeout_s=400
        )  # fmt: skip
        return f"{done}\n{done.stdout}{done.stderr}"

    def left(self) -> Left:
        """Files of the cluster (logs, sent code), of the tracking server and of the bucket; its answers and metrics."""
        found: Left = {}
        for path in [*self.head.folder.rglob("*"), *self.folder.rglob("*")]:
            if path.is_file() and path.name != "auth.ini" and not path.is_symlink():
                found[str(path)] = path.read_bytes()
        for info in self.store.get_file_info(fs.FileSelector(BUCKET, recursive=True)):
            if info.type == fs.FileType.File:
                with self.store.open_input_stream(info.path) as stream:
                    found[f"s3://{info.path}"] = stream.read()
        found["the jobs API"] = self.get(f"{self.head.address}/api/jobs/")
        targets = json.loads((self.head.folder / "ray" / "prom_metrics_service_discovery.json").read_text())
        for target in [target for group in targets for target in group["targets"]]:
            found[f"metrics of {target}"] = self.get(f"http://{target}/metrics")
        return {name: unpacked(name, content) for name, content in found.items()}

    def get(self, url: str) -> bytes:
        token = Path(self.head.client_environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            content: bytes = answer.read()
        return content


def unpacked(name: str, content: bytes) -> bytes:
    """The bytes and, of what is packed, what is in it: a secret in a compressed page is seen by no search."""
    if name.endswith(".parquet"):
        table = pq.read_table(io.BytesIO(content))
        return content + repr((table.schema.metadata, table.to_pydict())).encode()
    if name.endswith(".gz"):
        return content + gzip.decompress(content)
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return content + b"".join(archive.read(member) for member in archive.namelist())
    return content


def holders(left: Left) -> dict[str, list[str]]:
    """Where each secret stands."""
    return {
        name: [at for at, content in left.items() if secret.encode() in content] for name, secret in SECRETS.items()
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3_server(tmp_path_factory.mktemp("secret-s3"), BUCKET) as started:
        yield started


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    started = server_with_passwords(tmp_path_factory.mktemp("mlflow"), USER, PASSWORD)
    started.start()
    yield started
    started.kill()


@pytest.fixture(scope="module")
def place(isolated_environment: None, server: S3Server, mlflow: MlflowServer) -> Iterator[Place]:
    environment = {
        **server.environment,
        **SECRETS,
        "MLFLOW_TRACKING_URI": mlflow.uri,
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    head = ClusterHead(6, environment)
    key = server.environment["AWS_ACCESS_KEY_ID"]
    store = fs.S3FileSystem(
        access_key=key, secret_key=SECRET, endpoint_override=server.endpoint, region="us-east-1"
    )  # fmt: skip
    yield Place(head, store, mlflow, mlflow.directory)
    head.close()


def test_no_secret_is_left_by_a_generation_a_training_and_a_failure(place: Place, cli: Cli, tiny_model: Path) -> None:
    words = training_options(f"s3://{BUCKET}/runs", tiny_model)
    made = place.submit(cli, "python", "-m", "jobs.generate", *words)
    assert "40 images in" in made, made
    trained = place.submit(cli, "python", "-m", "jobs.train", *words)
    assert "accuracy" in trained, trained
    failed = place.submit(cli, "python", "-m", "jobs.verify", *training_options("s3://no-such-bucket/runs", tiny_model))
    assert "error: " in failed and "no-such-bucket" in failed, failed
    left = place.left()
    kinds = (".parquet", "server.db", ".safetensors", "driver", ".out", "config.json", "the jobs API", "metrics of ")
    assert [kind for kind in kinds if not any(kind in name for name in left)] == []
    assert b"train.learning_rate" in left[str(place.folder / "server.db")]  # the server with passwords was written to
    assert holders({**left, "printed here": (made + trained + failed).encode()}) == {name: [] for name in SECRETS}


@pytest.mark.parametrize("name", ["leak.parquet", "leak.log.gz", "leak.zip", "leak.txt"])
def test_the_search_sees_a_secret_in_every_kind_of_file(place: Place, name: str) -> None:
    text = f"the token is {TOKEN}".encode()
    packed = io.BytesIO()
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"prompt": [text.decode()] * 3}), packed, compression="zstd")
    elif name.endswith(".gz"):
        packed.write(gzip.compress(text))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside.txt", text)
    else:
        packed.write(text)
    with place.store.open_output_stream(f"{BUCKET}/{name}") as stream:
        stream.write(packed.getvalue())
    assert holders(place.left())["HF_TOKEN"] == [f"s3://{BUCKET}/{name}"]
    place.store.delete_file(f"{BUCKET}/{name}")


def test_the_search_sees_a_secret_that_a_job_prints(place: Place) -> None:
    printed = place.head.ray_job("submit", "--", "python", "-c", "import os; print(os.environ['HF_TOKEN'])")
    assert TOKEN in printed.stdout, str(printed)
    assert any("job-driver" in name for name in holders(place.left())["HF_TOKEN"])
