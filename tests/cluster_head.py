"""A cluster as `ray start --head` makes it: dashboard and jobs API on loopback, with a token, beside other Rays."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from pipeline.stages.head_watch import answers
from tests.conftest import REPOSITORY

MIB = 2**20
START_TIMEOUT_S = 180


class ClusterHead:
    """One node that plans and works. Close it: everything it started dies.

    Args:
        cpus: that Ray may plan with.
        environment: of the node's processes, over this one's.
        words: further options of `ray start`.
    """

    def __init__(self, cpus: int, environment: Mapping[str, str] | None = None, words: tuple[str, ...] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))  # the paths of Ray's sockets must be short
        token = self.folder / "token"
        token.write_text("0123456789abcdef0123456789abcdef")
        self.client_environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        gcs, dashboard, client = free_ports(3)
        self.gcs_address, self.address = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        programs = Path(sys.executable).parent
        self._log = self.folder / "start.log"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, programs / "ray", "start", "--head", "--block", "--disable-usage-stats",
                    "--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}",
                    f"--ray-client-server-port={client}", "--dashboard-agent-listen-port=0",
                    "--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={100 * MIB}",
                    f"--num-cpus={cpus}", f"--temp-dir={self.folder / 'ray'}", *words,
                ],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PATH": f"{programs}:{os.environ['PATH']}",
                    "RAY_worker_niceness": "0",
                    **self.client_environment,
                    **(environment or {}),
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(f"127.0.0.1:{dashboard}") or "Ray runtime started" not in self._log.read_text():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.5)

    @property
    def processes(self) -> list[psutil.Process]:
        """Of the node, the jobs' own too."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                if str(self.folder) in " ".join(process.cmdline()):
                    found |= {child.pid: child for child in [process, *process.children(recursive=True)]}
            except psutil.Error:
                continue
        return list(found.values())

    def close(self, *, keep_files: bool = False) -> None:
        """SIGKILL for everything: first all are stopped, so that none sees another one die."""
        alive = self.processes
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in alive:
                try:
                    process.send_signal(number)
                except psutil.NoSuchProcess:
                    continue
        self._process.wait()
        if not keep_files:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ray_job(self, *words: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        """`ray job WORDS`, as a user types it in the repository."""
        program = str(Path(sys.executable).parent / "ray")
        return subprocess.run(
            [sys.executable, program, "job", *words],
            cwd=REPOSITORY,
            env={**os.environ, **self.client_environment, "RAY_API_SERVER_ADDRESS": self.address},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
