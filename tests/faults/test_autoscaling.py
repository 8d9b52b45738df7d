"""An autoscaler that really starts and ends nodes, whose GPUs are labels: they come when images are to be made, are all
used, are replaced when they are lost, and go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._raylet import GcsClient

from pipeline.core.artifact import Store
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from tests.cluster_head import ClusterHead
from tests.conftest import REPOSITORY
from tests.faults.ray_nodes import MIB, kill
from tests.tiny_sets import SPACE, options, tiny_config, training_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

GPUS = 3
GROUPS = {
    "cpu": {"resources": {"CPU": 2, "object_store_memory": 80 * MIB}, "min_workers": 0, "max_workers": 1},
    "gpu": {"resources": {"CPU": 1, "GPU": 1, "object_store_memory": 80 * MIB}, "min_workers": 0, "max_workers": GPUS},
}
NODE = "RAY_CLOUD_INSTANCE_ID"


class Watcher:
    """How many GPU nodes are there, every half second, by Ray's control service."""

    def __init__(self, address: str) -> None:
        self._address, self._over = address, threading.Event()
        self.seen: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        client = GcsClient(address=self._address)
        while not self._over.wait(0.5):
            nodes = client.get_all_node_info(timeout=30).values()
            alive = [node for node in nodes if node.state == 0]  # ALIVE
            self.seen.append((time.time(), sum(1 for node in alive if node.resources_total.get("GPU", 0) > 0)))

    @property
    def now(self) -> int:
        return self.seen[-1][1]

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "trace"
    path.touch()
    return path


@pytest.fixture(scope="module")
def head(isolated_environment: None, trace: Path) -> Iterator[ClusterHead]:
    path = f"{REPOSITORY / 'tests' / 'faults' / 'trace'}:{REPOSITORY}"
    started = ClusterHead(0, {"SOAK_TRACE": str(trace), "PYTHONPATH": path}, GROUPS)
    os.environ.update(started.client_environment)
    yield started
    os.environ.pop("RAY_AUTH_MODE")
    started.close()


@pytest.fixture
def watcher(head: ClusterHead) -> Iterator[Watcher]:
    started = Watcher(head.gcs_address)
    yield started
    started.close()


def start(head: ClusterHead, model: Path, root: Path, changes: dict[str, object]) -> subprocess.Popen[bytes]:
    return run(head, root, "jobs.generate", *options(model, root, changes))


def run(head: ClusterHead, root: Path, module: str, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, **head.client_environment, "RAY_ADDRESS": head.gcs_address}
    with open(root.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log)


def begins(trace: Path, since_s: float) -> dict[int, float]:
    """When each process began its first shard."""
    found: dict[int, float] = {}
    for line in trace.read_text().splitlines():
        event, _, pid, at_s = line.split()
        if event == "begin" and float(at_s) >= since_s:
            found.setdefault(int(pid), float(at_s))
    return found


def wait_until(
    reached: Callable[[], Any], process: subprocess.Popen[bytes] | None, root: Path, timeout_s: float = 900
) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        log = root.with_suffix(".log").read_text() if root.with_suffix(".log").exists() else ""
        assert process is None or process.poll() is None, log
        assert time.monotonic() < deadline, log
        time.sleep(0.2)


def lose_a_gpu_node(head: ClusterHead) -> None:
    """SIGKILL for every process of one pretended GPU node, as when its machine is taken away."""
    by_node: dict[str, list[psutil.Process]] = {}
    with_gpu: list[str] = []
    for process in head.processes:
        try:
            node = process.environ().get(NODE, "")
            by_node.setdefault(node, []).append(process)
            if process.name() == "raylet" and any("GPU," in word for word in process.cmdline()):
                with_gpu.append(node)
        except psutil.Error:
            continue
    kill(by_node[max(with_gpu)])


def test_cpu_work_starts_no_gpu_node(head: ClusterHead, watcher: Watcher, tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "cpu"
    process = start(head, tiny_model, root, {"generate.preflight": "never"})
    assert process.wait(900) == 0, root.with_suffix(".log").read_text()
    assert {count for _, count in watcher.seen} == {0}


def test_gpu_nodes_come_are_used_are_replaced_and_go(
    head: ClusterHead, watcher: Watcher, trace: Path, tiny_model: Path, tmp_path: Path
) -> None:
    root, shards = tmp_path / "gpu", 60
    changes: dict[str, object] = {
        "recipe.num_inference_steps": 30,
        "images_per_class": shards,
        "generate.num_actors": GPUS,
        "generate.num_gpus_per_actor": 1,
        "generate.stall_timeout_s": 600,
    }
    images = resolve_recipe(tiny_config(tiny_model, changes)).images_dir
    store = Store.open(str(root))
    wait_until(lambda: watcher.seen and watcher.now == 0, None, root)
    started_s = time.time()
    process = start(head, tiny_model, root, changes)
    wait_until(lambda: len(begins(trace, started_s)) >= GPUS, process, root)
    first = begins(trace, started_s)
    all_busy_s = max(first.values())
    first_node_s = next(at_s for at_s, count in watcher.seen if count and at_s > started_s)
    loads_s = [at_s - psutil.Process(pid).create_time() for pid, at_s in first.items()]
    ratio = (all_busy_s - first_node_s) / max(loads_s)
    print(
        f"all {GPUS} busy {all_busy_s - started_s:.1f} s after the command, {all_busy_s - first_node_s:.1f} s after "
        f"the first node; actors took {min(loads_s):.1f} to {max(loads_s):.1f} s from process to first shard; ratio "
        f"{ratio:.2f}"
    )
    assert ratio <= 2.0
    lost_s = time.time()
    lose_a_gpu_node(head)
    wait_until(lambda: len(begins(trace, lost_s).keys() - first.keys()) >= 1, process, root)
    replaced_s = min(at_s for pid, at_s in begins(trace, lost_s).items() if pid not in first)
    print(f"a lost node's successor began its first shard {replaced_s - lost_s:.1f} s later")
    assert process.wait(1200) == 0, root.with_suffix(".log").read_text()
    ended_s = time.time()
    assert published_shards(store, images) == set(range(shards))
    assert max(count for _, count in watcher.seen) == GPUS
    wait_until(lambda: watcher.now == 0, None, root)
    print(f"no GPU node {time.time() - ended_s:.1f} s after the end")


def test_an_actor_that_no_group_can_hold_is_one_line_in_seconds(
    head: ClusterHead, tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "none"
    process = start(head, tiny_model, root, {"generate.num_gpus_per_actor": 8})
    assert process.wait(300) == 2, root.with_suffix(".log").read_text()
    last = root.with_suffix(".log").read_text().strip().splitlines()[-1]
    assert last.startswith(
        "error: no node of the cluster has 1 CPU, 8 GPU for an actor, and its autoscaler has no group"
    )


def test_more_actors_than_the_limit_work_on_what_the_limit_gives(
    head: ClusterHead, watcher: Watcher, trace: Path, tiny_model: Path, tmp_path: Path
) -> None:
    root, started_s = tmp_path / "more", time.time()
    changes = {"images_per_class": 30, "generate.num_actors": GPUS + 2, "generate.num_gpus_per_actor": 1}
    process = start(head, tiny_model, root, {"recipe.num_inference_steps": 30, **changes})
    assert process.wait(1200) == 0, root.with_suffix(".log").read_text()
    assert max(count for _, count in watcher.seen) == GPUS and len(begins(trace, started_s)) == GPUS
    assert f"{GPUS + 2} actors need" in root.with_suffix(".log").read_text()


def test_a_pool_of_one_actor_grows_to_its_upper_bound(
    head: ClusterHead, watcher: Watcher, trace: Path, tiny_model: Path, tmp_path: Path
) -> None:
    root, started_s = tmp_path / "grow", time.time()
    changes = {"images_per_class": 90, "generate.num_actors": 1, "generate.max_actors": GPUS}
    changes |= {"generate.num_gpus_per_actor": 1, "recipe.num_inference_steps": 60}
    process = start(head, tiny_model, root, {**changes})
    wait_until(lambda: len(begins(trace, started_s)) == GPUS, process, root)
    print(f"{GPUS} actors {time.time() - min(begins(trace, started_s).values()):.1f} s after the first one's shard")
    assert process.wait(1200) == 0, root.with_suffix(".log").read_text()


def test_a_sweep_starts_on_no_node_at_all(
    head: ClusterHead, watcher: Watcher, tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "sweep"
    wait_until(lambda: watcher.seen and watcher.now == 0, None, root)
    (tmp_path / "space.yaml").write_text(SPACE)
    words = [*training_options(root, tiny_model), "--set", "tracking.enabled=false", "--slots", "2"]
    words += ["--set", "generate.num_gpus_per_actor=1", "--space", str(tmp_path / "space.yaml")]
    process = run(head, root, "tune.sweep", *words)
    assert process.wait(1500) == 0, root.with_suffix(".log").read_text()
    assert "2 trials, 2 at a time" in root.with_suffix(".log").read_text()
    assert max(count for _, count in watcher.seen) >= 1


def test_a_group_with_a_minimum_keeps_it(isolated_environment: None, tiny_model: Path, tmp_path: Path) -> None:
    group = {**GROUPS["gpu"], "min_workers": 1, "max_workers": 2}
    started = ClusterHead(0, {}, {"cpu": GROUPS["cpu"], "gpu": group})
    try:
        watcher, root = Watcher(started.gcs_address), tmp_path / "minimum"
        wait_until(lambda: watcher.seen and watcher.now == 1, None, root)
        changes = {"images_per_class": 20, "generate.num_actors": 2, "generate.num_gpus_per_actor": 1}
        process = start(started, tiny_model, root, {"recipe.num_inference_steps": 30, **changes})
        assert process.wait(1200) == 0, root.with_suffix(".log").read_text()
        assert max(count for _, count in watcher.seen) == 2
        wait_until(lambda: watcher.now == 1, None, root)
        time.sleep(15)  # longer than the idle timeout
        assert watcher.now == 1
        watcher.close()
    finally:
        started.close()
