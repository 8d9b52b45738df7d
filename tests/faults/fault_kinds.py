"""The faults: what is killed, filled, cut or silenced, and what must happen then."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil

from tests.faults.lab import is_alive
from tests.faults.ray_nodes import kill
from tests.faults.round import Scene
from tests.faults.set_check import only_set, published_names

SAY_WITHIN_S = 60


class Quiet:
    """What most faults share: a set on the local disk, nothing to prepare and nothing to end."""

    kind = ""
    in_store = False
    may_repeat = False

    def strike(self, scene: Scene) -> None:
        """Do it; `scene.record` counts it."""
        raise NotImplementedError

    def prepare(self, scene: Scene) -> None:
        """Nothing."""

    def wait(self, scene: Scene) -> bool:
        """Until the next strike; False when the job has ended."""
        return scene.wait_for_moment()

    def end(self, scene: Scene) -> None:
        """Nothing."""


class KillActor(Quiet):
    """One worker process dies; its node lives."""

    kind = "actor"

    def strike(self, scene: Scene) -> None:
        if makers := scene.makers():
            victim = scene.lab.random.choice(makers)
            at_s = time.time()
            kill([psutil.Process(victim)])
            scene.record(self.kind, at_s, [victim])


class KillActorAnytime(Quiet):
    """One worker process dies, as likely while it starts or loads the model as while it makes a shard."""

    kind = "actor, also while loading"

    def wait(self, scene: Scene) -> bool:
        time.sleep(scene.lab.random.uniform(1, 8))
        return scene.running.is_running

    def strike(self, scene: Scene) -> None:
        if actors := scene.lab.nodes.actors():
            victim = scene.lab.random.choice(actors)
            at_s = time.time()
            kill([victim])
            scene.record(self.kind, at_s, [victim.pid])


class KillNode(Quiet):
    """A worker node dies with everything on it, and another one joins."""

    kind = "node"

    def strike(self, scene: Scene) -> None:
        victim = scene.lab.random.choice(scene.lab.nodes.workers)
        hit = [pid for pid in scene.actors() if scene.lab.nodes.worker_of(pid) is victim]
        at_s = time.time()
        scene.lab.nodes.kill_worker(victim)
        scene.record(self.kind, at_s, hit)
        scene.lab.nodes.add_worker()


class KillAllNodes(Quiet):
    """Every worker node dies and none comes: the job says so; then nodes come, and it goes on."""

    kind = "all nodes"

    def strike(self, scene: Scene) -> None:
        hit, nodes = scene.actors(), scene.lab.nodes
        at_s = time.time()
        count = len(nodes.workers)
        for node in nodes.workers:
            nodes.kill_worker(node)
        before = scene.running.text.count("nothing has happened")
        while scene.running.text.count("nothing has happened") == before:
            assert time.time() - at_s < SAY_WITHIN_S and scene.running.is_running, scene.running.text[-6000:]
            time.sleep(0.1)
        scene.record(self.kind, at_s, hit, time.time() - at_s)
        for _ in range(count):
            nodes.add_worker()


class KillDriver(Quiet):
    """The command itself dies; it is started again."""

    kind = "driver"

    def strike(self, scene: Scene) -> None:
        hit = scene.actors()
        at_s = time.time()
        scene.running.kill()
        scene.record(self.kind, at_s, hit)
        wait_until_gone(hit)
        scene.start()


class KillDriverAnytime(KillDriver):
    """The command dies wherever it is: while it starts, joins the cluster, waits for its actors or for shards."""

    kind = "driver, also while starting"

    def wait(self, scene: Scene) -> bool:
        time.sleep(scene.lab.random.uniform(1, 25))
        return scene.running.is_running


class KillHead(Quiet):
    """The head dies and the driver with it, as when a job was submitted to it; workers may outlive both for a while."""

    kind = "head"
    may_repeat = True
    driver_survives = False

    def strike(self, scene: Scene) -> None:
        hit = scene.actors()
        at_s = time.time()
        scene.lab.nodes.kill_head()
        said_s = None
        if self.driver_survives:
            scene.running.check_error("head", timeout_s=SAY_WITHIN_S)
            said_s = time.time() - at_s
        scene.running.kill()
        scene.record(self.kind, at_s, hit, said_s)
        scene.lab.new_cluster(leave_workers=scene.lab.random.random() < 0.3)
        scene.start()


class KillHeadOnly(KillHead):
    """The head dies; the driver, on another machine, must say so and end."""

    kind = "head, driver elsewhere"
    driver_survives = True


class FullDisk(Quiet):
    """The root's file system is full; then there is room again. A real one: a tmpfs."""

    kind = "full disk"
    start_kib = 120

    def prepare(self, scene: Scene) -> None:
        Path(scene.root).mkdir()
        self._mount(scene, f"size={self.start_kib}k")
        scene.stack.callback(subprocess.run, ["umount", "-l", scene.root], check=True)

    def wait(self, scene: Scene) -> bool:
        return scene.running.wait() != 0

    @staticmethod
    def possible() -> bool:
        return os.geteuid() == 0

    @staticmethod
    def _mount(scene: Scene, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", scene.root], check=True)

    def strike(self, scene: Scene) -> None:
        """The disk is full some shards later: the job ends and says so; the next one finds a little more room."""
        scene.running.check_error("No space left")
        before_s = scene.strikes[-1].at_s if scene.strikes else scene.began_s
        hit = {event.pid for event in scene.begun() if event.at_s > before_s}
        scene.record(self.kind, time.time(), sorted(hit))
        size_kib = self.start_kib + 100 * len(scene.strikes)
        self._mount(scene, f"remount,size={size_kib}k")
        scene.start()

    def end(self, scene: Scene) -> None:
        self._mount(scene, "remount,size=64m")
        scene.running.wait()  # it may have found the disk full once more
        scene.start()


class StoreOutage(Quiet):
    """The store answers 500, or not at all, for a while; the job waits and goes on."""

    in_store = True

    def __init__(self, mode: str, longest_s: float) -> None:
        self.kind, self._mode, self._longest_s = f"store: {mode}", mode, longest_s

    def strike(self, scene: Scene) -> None:
        proxy = scene.lab.proxy
        assert proxy is not None
        proxy.set_mode(self._mode)  # type: ignore[arg-type]
        at_s, before = time.time(), proxy.faults
        length_s = scene.lab.random.uniform(1, self._longest_s)
        while time.time() - at_s < length_s or proxy.faults == before:
            if not scene.running.is_running:
                break
            time.sleep(0.1)
        proxy.set_mode("pass")
        if proxy.faults > before:
            scene.record(self.kind, at_s, [])


class TruncateShard(Quiet):
    """A published shard loses its end; the job names it, `jobs.verify --repair` mends the set."""

    kind = "truncated shard"

    def strike(self, scene: Scene) -> None:
        files, root = scene.lab.files(scene.root)
        names = published_names(files, root)
        if not names:
            return
        path = Path(only_set(files, root)) / "shards" / scene.lab.random.choice(names)
        at_s = time.time()
        os.truncate(path, scene.lab.random.randrange(path.stat().st_size))
        if scene.running.wait() != 0:  # otherwise it had read all footers before
            scene.running.check_error(f"{path} is damaged")
        scene.record(self.kind, at_s, [])
        repair = scene.lab.start(scene.root, scene.shards, "jobs.verify", "--repair")
        repair.check_ok()
        scene.repairs += 1
        scene.start()


class TwoDrivers(Quiet):
    """A second command on the same set; in half the cases one of the two is killed."""

    kind = "two drivers"
    may_repeat = True

    def strike(self, scene: Scene) -> None:
        first = scene.running
        scene.start()
        second = scene.running
        at_s = time.time()
        victim = scene.lab.random.choice((None, None, first, second))
        if victim is None:
            first.check_ok()
            second.check_ok()
        else:
            scene.wait_for_moment()
            victim.kill()
            scene.job = second if victim is first else first
        scene.record(self.kind, at_s, [])


class InTurn(Quiet):
    """Several kinds in one set, one after the other."""

    def __init__(self, *faults: Quiet) -> None:
        self._faults = faults
        self.kind = ", ".join(fault.kind for fault in faults)

    def strike(self, scene: Scene) -> None:
        self._faults[len(scene.strikes) % len(self._faults)].strike(scene)


def wait_until_gone(pids: list[int], timeout_s: float = 60) -> None:
    """Workers of a dead driver are ended by Ray; whoever comes back sooner than that may make a shard beside them."""
    deadline = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.1)
