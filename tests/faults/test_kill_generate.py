"""Real processes, really killed: a set that was interrupted ends with the rows of an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.extra_set import published_extras
from pipeline.core.extra_shards import extra_shards
from pipeline.core.image_set import published_shards, set_totals
from tests.bad_input import tree
from tests.conftest import REPOSITORY, Cli
from tests.faults.undisturbed import make_undisturbed
from tests.tiny_sets import options, tiny_config

SHARDS = 16
Ledger = Callable[[Store, str], set[int]]
CHANGES = {"recipe.num_inference_steps": 30, "images_per_class": SHARDS, "generate.num_actors": 2}


def arguments(model: Path, root: Path) -> list[str]:
    return [*options(model, root, CHANGES), "--json"]


@contextmanager
def running(model: Path, root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process group of its own, which is gone at the end whatever happened."""
    command = [sys.executable, "-m", "jobs.generate", *arguments(model, root), *words]
    with open(root.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for_shards(
    process: subprocess.Popen[bytes], root: Path, count: int, published: Ledger = published_shards
) -> set[int]:
    """The shards published once there are `count`."""
    store = Store.open(str(root))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, root.with_suffix(".log").read_text()
        sets = list((root / "images").glob("*")) if (root / "images").exists() else []
        if sets and len(done := published(store, f"images/{sets[0].name}")) >= count:
            return done
        time.sleep(0.02)
    pytest.fail(f"only slow progress: {root.with_suffix('.log').read_text()}")


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The content hash of the same images, made in this process by a bare loop over the shards."""
    config, store = tiny_config(tiny_model, CHANGES), Store.open(str(tmp_path_factory.mktemp("undisturbed")))
    return str(set_totals(make_undisturbed(config, store, range(SHARDS)))["set_sha256"])


def finished_hash(root: Path) -> str:
    lines = [line for line in root.with_suffix(".log").read_text().splitlines() if line.startswith("{")]
    summary = json.loads(lines[-1])
    assert summary["rows"] == summary["ok"] == SHARDS * 10
    return str(summary["set_sha256"])


@pytest.mark.slow  # the soak of test_soak.py kills drivers and actors in every run
def test_a_killed_driver_costs_only_the_shards_in_the_making(
    tiny_model: Path, tmp_path: Path, undisturbed: str, cli: Cli
):
    root = tmp_path / "runs"
    seed = random.SystemRandom().randrange(1000)
    print(f"random seed {seed}")
    with running(tiny_model, root) as process:
        wait_for_shards(process, root, random.Random(seed).randint(1, SHARDS // 2))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(2)  # workers that outlive their driver may still publish: the same rows under the same name
    (images,) = (root / "images").glob("*")
    published = {path: path.stat().st_mtime_ns for path in images.glob("shards/shard-*")}
    assert published and len(published) < SHARDS

    again = cli("jobs.generate", *arguments(tiny_model, root)).check_ok().json
    assert again["set_sha256"] == undisturbed
    assert again["images_made"] == (SHARDS - len(published)) * 10
    assert {path: path.stat().st_mtime_ns for path in published} == published
    assert len(list(images.glob("shards/*"))) == SHARDS


@pytest.mark.slow
def test_a_killed_actor_loses_and_doubles_nothing(tiny_model: Path, tmp_path: Path, undisturbed: str):
    root = tmp_path / "runs"
    with running(tiny_model, root) as process:
        wait_for_shards(process, root, 2)
        children = psutil.Process(process.pid).children(recursive=True)
        actors = [child for child in children if "MapWorker" in " ".join(child.cmdline())]
        assert len(actors) == 2
        actors[0].send_signal(signal.SIGKILL)
        assert process.wait(timeout=180) == 0, root.with_suffix(".log").read_text()
    assert finished_hash(root) == undisturbed


@pytest.mark.slow
def test_killed_actors_and_drivers_cost_no_extra_image(tiny_model: Path, tmp_path: Path, cli: Cli):
    """Extra images of two classes: a driver is killed, then an actor; the set beside them is not touched."""
    root, file, undisturbed_root = tmp_path / "runs", tmp_path / "growth.csv", str(tmp_path / "undisturbed")
    file.write_text("class,images\nBag,60\nSandal,35\n")
    counts = {"n02774152": 60, "n04133789": 35}
    shards = extra_shards([counts.get(wnid, 0) for wnid in load_class_table("fashion_mnist").wnids], 5)
    config = tiny_config(tiny_model, CHANGES)
    undisturbed = set_totals(make_undisturbed(config, Store.open(undisturbed_root), shards))["set_sha256"]
    cli("jobs.generate", *arguments(tiny_model, root)).check_ok()
    uniform = tree(*root.glob("images/*/shards"))
    with running(tiny_model, root, "--per-class", str(file)) as process:
        wait_for_shards(process, root, 3, published_extras)
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(2)  # workers that outlive their driver may still publish: the same rows under the same name
    (images,) = (root / "images").glob("*")
    first = {path: path.stat().st_mtime_ns for path in images.glob("extra/class-*")}
    assert 3 <= len(first) < len(shards)
    with running(tiny_model, root, "--per-class", str(file)) as process:
        wait_for_shards(process, root, len(first) + 1, published_extras)
        actors = [c for c in psutil.Process(process.pid).children(recursive=True) if "MapWorker" in str(c.cmdline())]
        actors[0].send_signal(signal.SIGKILL)
        assert process.wait(timeout=180) == 0, root.with_suffix(".log").read_text()
    again = cli("jobs.generate", *arguments(tiny_model, root), "--per-class", str(file)).check_ok().json
    assert (again["set_sha256"], again["images_made"], again["shards"]) == (undisturbed, 0, len(shards))
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert tree(*root.glob("images/*/shards")) == uniform
