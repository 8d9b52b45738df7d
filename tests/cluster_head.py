"""A cluster as `ray start --head` makes it: dashboard and jobs API on loopback, with a token, beside other Rays."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import ray
import ray._private.services
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from pipeline.stages.head_watch import answers
from tests.conftest import REPOSITORY
from tests.faults.ray_nodes import MIB, kill

START_TIMEOUT_S = 540
JOINED = "Ray runtime started"
"""What `ray start` says when its node is up."""


class ClusterHead:
    """One node that plans and works. Close it: everything it started dies.

    Args:
        cpus: that Ray may plan with.
        environment: of the node's processes, over this one's.
        groups: of pretended nodes that an autoscaler (v2) starts and ends: name -> resources, min_workers, max_workers.
            Their processes run here, their GPUs are labels. Then without a token.
    """

    def __init__(
        self,
        cpus: int,
        environment: Mapping[str, str] | None = None,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rh-", dir="/tmp"))  # the paths of Ray's sockets must be short
        token = self.folder / "token"
        token.write_text("0123456789abcdef0123456789abcdef")
        self.client_environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        words: list[str] = []
        gcs, dashboard, client = free_ports(3)
        self.gcs_address, self._address = f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        if groups:
            host = ray._private.services.get_node_ip_address()
            config = self.folder / "autoscaling.json"
            config.write_text(json.dumps(autoscaling_config(groups, f"{host}:{gcs}")))
            words = [f"--autoscaling-config={config}"]
            self.client_environment = {"RAY_AUTH_MODE": "disabled"}
            environment = {**PRETENDED, **(environment or {})}
        self._environment = environment or {}
        self._added = 0
        self._log = self.folder / "start.log"
        words += [
            "--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
            f"--object-store-memory={100 * MIB}", f"--num-cpus={cpus}", f"--temp-dir={self.folder / 'ray'}",
        ]  # fmt: skip
        self._process = self._ray_start(self._log, *words)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (answers(f"127.0.0.1:{dashboard}") and JOINED in self._log.read_text() and self._takes_jobs):
            if time.monotonic() >= deadline or self._process.poll() is not None:
                said = self.last_words
                self.close()
                raise AssertionError(f"it does not start:\n{said}")
            time.sleep(0.5)

    def _ray_start(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        programs = Path(sys.executable).parent
        with open(log, "ab") as file:
            return subprocess.Popen(
                [
                    sys.executable, REPOSITORY / "tests/ray_start.py", "start", "--block", "--disable-usage-stats",
                    "--node-ip-address=127.0.0.1", "--min-worker-port=0", "--max-worker-port=0", *words,
                ],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PATH": f"{programs}:{os.environ['PATH']}",
                    "RAY_worker_niceness": "0",
                    "RAY_raylet_start_wait_time_s": "480",  # why: see conftest; the long runs have none
                    **self.client_environment,
                    **self._environment,
                },
                stdout=file,
                stderr=file,
                start_new_session=True,
            )  # fmt: skip

    @property
    def _takes_jobs(self) -> bool:
        """Its agent, which starts them, is up: a node does not wait for that, see `agents_may_be_late`."""
        files = (self.folder / "ray").glob("session_2*/dashboard_agent_listen_port_*")
        return all(answers(f"127.0.0.1:{file.read_text()}") for file in files)

    @property
    def address(self) -> str:
        """Of its dashboard. A head that has ended fails the test here, with what it and its processes said last."""
        assert self._process.poll() is None, f"the head ended with {self._process.returncode}:\n{self.last_words}"
        return self._address

    @property
    def last_words(self) -> str:
        """The end of what `ray start` and each process of the head wrote."""
        logs = [self._log, *sorted((self.folder / "ray").glob("session_2*/logs/*.*"))]
        texts = {path.name: path.read_text(errors="replace").splitlines()[-12:] for path in logs if path.is_file()}
        return "\n".join("\n".join([f"--- {name}", *lines]) for name, lines in texts.items() if lines)

    def add_node(self, cpus: int) -> subprocess.Popen[bytes]:
        """One more node joins; the process that all of its own descend from. It may not be up yet.

        It has an address of its own: a driver on the head would take any node of the head's address for its own.
        """
        self._added += 1
        words = (
            f"--address={self.gcs_address}", f"--num-cpus={cpus}", f"--object-store-memory={80 * MIB}",
            f"--node-ip-address=127.0.1.{self._added}",
        )  # fmt: skip
        return self._ray_start(self.folder / "nodes.log", *words)

    @property
    def nodes_log(self) -> str:
        """What the added nodes said at their start; `JOINED` for each that is up."""
        log = self.folder / "nodes.log"
        return log.read_text(errors="replace") if log.exists() else ""

    @staticmethod
    def kill_node(node: subprocess.Popen[bytes]) -> None:
        """SIGKILL for an added node and everything on it at once, as when a machine is lost."""
        if node.poll() is None:
            parent = psutil.Process(node.pid)
            kill([parent, *parent.children(recursive=True)])
            node.wait()

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

    def close(self) -> None:
        """SIGKILL for everything."""
        kill(self.processes)
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """A command that talks to this cluster, as a user starts it in the repository; what it says goes to the log."""
        with open(log, "wb") as file:
            environment = {**os.environ, **self.client_environment}
            return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=file, stderr=file)

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


PRETENDED = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
}


def autoscaling_config(groups: Mapping[str, Mapping[str, Any]], gcs_address: str) -> dict[str, Any]:
    """What the autoscaler reads. Ray's own provider of such nodes is named as an external one: the wheel lacks the
    example file that its name `fake_multinode` stands for."""
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    types = {name: {"node_config": {}, **group} for name, group in groups.items()}
    return {
        "cluster_name": "pretended",
        "max_workers": sum(group["max_workers"] for group in groups.values()),
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": gcs_address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            **types,
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{f"{name}_commands": [] for name in commands},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    }


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports
