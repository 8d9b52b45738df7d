"""A Ray cluster of several nodes in one machine, whose nodes die by SIGKILL with all their processes at once."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
from ray._common.utils import get_default_ray_temp_dir
from ray.cluster_utils import Cluster

from pipeline.stages.local_node import agents_may_be_late

MIB = 2**20
HEAD = {"num_cpus": 0, "object_store_memory": 100 * MIB, "include_dashboard": False}
WORKER = {"num_cpus": 1, "object_store_memory": 80 * MIB}


class RayNodes:
    """A head that takes no work, and workers of one CPU each.

    Environment variables of this process at the start of a node are those of its workers.
    """

    def __init__(self, workers: int) -> None:
        self._folder = tempfile.mkdtemp(prefix="rn-", dir="/tmp")  # the paths of Ray's sockets must be short
        # `Cluster` notes its address there, wherever its own folder is; no Ray may have run on this machine yet.
        Path(get_default_ray_temp_dir()).mkdir(exist_ok=True)
        with agents_may_be_late():
            self._cluster = Cluster(initialize_head=True, head_node_args={**HEAD, "temp_dir": self._folder})
        self.address: str = self._cluster.address
        for _ in range(workers):
            self.add_worker()

    def add_worker(self) -> None:
        """A new node joins, as an autoscaler would bring one in the place of a lost one."""
        with agents_may_be_late():
            self._cluster.add_node(**WORKER)

    @property
    def workers(self) -> list[Any]:
        return sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id))

    def worker_of(self, pid: int) -> Any | None:
        """The worker node that a process belongs to."""
        return next((node for node in self.workers if pid in {process.pid for process in family([node])}), None)

    def actors(self) -> list[psutil.Process]:
        """The processes of the pool's actors, those that still start too; Ray names processes after what they run."""
        found = []
        for process in family(self.workers):
            try:
                if any("MapWorker" in word for word in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return sorted(found, key=lambda process: process.pid)

    def kill_worker(self, node: Any) -> None:
        kill(family([node]))
        reap(node)
        self._cluster.worker_nodes.remove(node)

    def kill_head(self) -> None:
        """The head alone: Ray's control service, its raylet, its helpers."""
        kill(family([self._cluster.head_node]))
        reap(self._cluster.head_node)

    def close(self) -> None:
        """Whatever is left dies; the logs of Ray go with it."""
        kill(family([*self.workers, self._cluster.head_node]))
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def family(nodes: Iterable[Any]) -> list[psutil.Process]:
    """The processes of nodes and their children.

    One that has ended is left out by its `Popen`, not by its pid: that may be another test's process by now, whose
    whole cluster would be taken for this node's.
    """
    found = []
    for node in nodes:
        for infos in node.all_processes.values():
            for info in infos:
                if info.process.poll() is not None:
                    continue
                try:
                    parent = psutil.Process(info.process.pid)
                    found += [parent, *parent.children(recursive=True)]
                except psutil.NoSuchProcess:
                    continue
    return found


def reap(node: Any) -> None:
    """A node's processes are children of this one and must not stay as zombies."""
    for infos in node.all_processes.values():
        for info in infos:
            info.process.wait()


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL; first all are stopped, so that none sees another one die. Whose pid is another's by now is spared."""
    alive = list(processes)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in alive:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
