"""Where faults are tried: a cluster, a store, the command as a real process, and what its workers did, from outside."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from pyarrow import fs

from tests.conftest import REPOSITORY
from tests.faults.ray_nodes import RayNodes
from tests.faults.set_check import rows_of
from tests.faults.store_proxy import StoreProxy
from tests.s3_server import KEY, SECRET, running_s3_server
from tests.tiny_sets import options

BUCKET = "faults"
SHARD_STEPS = 30
"""Steps that let a shard of 10 images take about a second on one core."""
CHANGES = {"recipe.num_inference_steps": SHARD_STEPS, "generate.num_actors": 2, "generate.log_interval_s": 5}
END_TIMEOUT_S = 600


@dataclass(frozen=True)
class Event:
    """A process of the cluster begins, ends or fails to make a shard; `at_s` is since 1970."""

    what: str
    shard: int
    pid: int
    at_s: float


class Job:
    """One run of a command, in a process group of its own."""

    def __init__(self, module: str, words: list[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=REPOSITORY,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        if self.is_running:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float = END_TIMEOUT_S) -> int:
        try:
            return self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end in {timeout_s:.0f} s:\n{self.text[-6000:]}") from None

    def check_ok(self) -> None:
        assert self.wait() == 0, self.text[-6000:]

    def check_error(self, says: str, timeout_s: float = END_TIMEOUT_S) -> None:
        """It ends with exit code 1, one `error:` line as the last one, and nothing of Python's or Ray's layers."""
        code, text = self.wait(timeout_s), self.text
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert code == 1 and len(errors) == 1 and says in errors[0], (code, text[-6000:])
        assert "Traceback" not in text and text.rstrip().endswith(errors[0]), text[-6000:]


class Lab:
    """Holds what rounds share.

    Args:
        folder: for everything that is written.
        shards: of the largest set that rounds may ask for.
        seed: of the random moments.
    """

    def __init__(self, folder: Path, shards: int, seed: int) -> None:
        self.folder, self.shards, self.random = folder, shards, random.Random(seed)
        self.model, self._trace, self._jobs = folder / "model", folder / "trace", 0
        self._trace.touch()
        sets = [f"{key}={value}" for key, value in {**CHANGES, "images_per_class": shards}.items()]
        self._made = subprocess.Popen(  # beside the start of the cluster
            [sys.executable, "-m", "tests.faults.undisturbed", self.model, folder / "undisturbed", str(shards), *sets],
            cwd=REPOSITORY,
        )
        self._stack = ExitStack()
        self._clusters: list[RayNodes] = []
        self.proxy: StoreProxy | None = None
        self._s3: dict[str, str] = {}
        self._endpoint = ""

    @contextmanager
    def open(self, workers: int, *, with_store: bool) -> Iterator[Lab]:
        """Start the store, then the cluster, whose workers inherit the store's address."""
        with self._stack:
            self._stack.callback(self._made.kill)
            if with_store:
                (self.folder / "s3").mkdir()
                server = self._stack.enter_context(running_s3_server(self.folder / "s3", BUCKET))
                self.proxy = self._stack.enter_context(StoreProxy(server.endpoint).serving())
                self._endpoint = server.endpoint
                self._s3 = {**server.environment, "AWS_ENDPOINT_URL": self.proxy.endpoint}
            environment = {
                **self._s3,
                "SOAK_TRACE": str(self._trace),
                "PYTHONPATH": f"{REPOSITORY / 'tests' / 'faults' / 'trace'}:{REPOSITORY}",
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_worker_niceness": "0",
            }
            self._stack.enter_context(patch.dict(os.environ, environment))
            self._stack.callback(self._close_clusters)
            self._workers = workers
            self._clusters.append(RayNodes(workers))
            assert len(self.undisturbed) > 0  # and the model is there
            yield self

    @cached_property
    def undisturbed(self) -> list[dict[str, Any]]:
        """Rows of the largest set, made without disturbance."""
        assert self._made.wait() == 0
        return rows_of(fs.LocalFileSystem(), str(self.folder / "undisturbed"))

    @property
    def nodes(self) -> RayNodes:
        return self._clusters[-1]

    def new_cluster(self, *, leave_workers: bool) -> None:
        """After the loss of a head; what is left of the old cluster dies now, or when the next one goes."""
        if not leave_workers:
            self._close_clusters()
        self._clusters.append(RayNodes(self._workers))

    def _close_clusters(self) -> None:
        while self._clusters:
            self._clusters.pop().close()

    def new_root(self, *, in_store: bool) -> str:
        name = f"root-{time.time_ns()}"
        return f"s3://{BUCKET}/{name}" if in_store else str(self.folder / name)

    def files(self, root: str) -> tuple[fs.FileSystem, str]:
        """The file system of a root, past the proxy, and the root's path in it."""
        if not root.startswith("s3://"):
            return fs.LocalFileSystem(), root
        s3 = fs.S3FileSystem(access_key=KEY, secret_key=SECRET, endpoint_override=self._endpoint, region="us-east-1")
        return s3, root.removeprefix("s3://")

    def start(self, root: str, shards: int, module: str = "jobs.generate", *words: str, **changes: Any) -> Job:
        """Start a command on the cluster."""
        self._jobs += 1
        settings = {**CHANGES, "images_per_class": shards, "generate.preflight": "never", **changes}
        environment = {**os.environ, "RAY_ADDRESS": self.nodes.address}
        log = self.folder / f"job-{self._jobs:04d}.log"
        return Job(module, [*options(self.model, root, settings), *words], environment, log)

    def events(self, since_s: float) -> list[Event]:
        """What processes noted since a time."""
        lines = [line.split() for line in self._trace.read_text().splitlines()]
        found = [Event(what, int(shard), int(pid), float(at)) for what, shard, pid, at in lines]
        return [event for event in found if event.at_s >= since_s]

    def makers(self, since_s: float) -> list[int]:
        """Pids of living processes that have begun a shard since a time."""
        return sorted({event.pid for event in self.events(since_s) if is_alive(event.pid)})


def is_alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
