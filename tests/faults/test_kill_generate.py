"""Real processes, really killed: a set that was interrupted ends with the rows of an undisturbed one."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.core.image_set import published_shards, set_totals
from pipeline.core.recipe import resolve_recipe
from pipeline.core.shard_maker import ShardMaker
from pipeline.stages.prompts import ensure_prompt_table
from tests.conftest import REPOSITORY, Cli

SHARDS = 16


def arguments(model: Path, root: Path) -> list[str]:
    settings = {
        "recipe.model.id": model,
        "recipe.width": 16,
        "recipe.height": 16,
        "recipe.num_inference_steps": 30,
        "generate.shard_size": 10,
        "generate.batch_size": 5,
        "tracking.enabled": "false",
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["--preset", "fashion", "--images-per-class", str(SHARDS), "--root", str(root), "--json", *sets]


@contextmanager
def running(model: Path, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a process group of its own, which is gone at the end whatever happened."""
    command = [sys.executable, "-m", "jobs.generate", *arguments(model, root)]
    with open(root.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for_shards(process: subprocess.Popen[bytes], root: Path, count: int) -> set[int]:
    """The shards published once there are `count`."""
    store = Store.open(str(root))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, root.with_suffix(".log").read_text()
        sets = list((root / "images").glob("*")) if (root / "images").exists() else []
        if sets and len(done := published_shards(store, f"images/{sets[0].name}")) >= count:
            return done
        time.sleep(0.02)
    pytest.fail(f"only slow progress: {root.with_suffix('.log').read_text()}")


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The content hash of the same images, made in this process by a bare loop over the shards."""
    words = arguments(tiny_model, tmp_path_factory.mktemp("undisturbed") / "runs")
    overrides = [value for word, value in pairwise(words) if word == "--set"]
    config = load_config("fashion", overrides=[*overrides, f"images_per_class={SHARDS}"])
    store, recipe = Store.open(words[words.index("--root") + 1]), resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.generate.torch_threads)  # sums, and so the last bits, depend on it
    try:
        return str(set_totals([maker.make(shard) for shard in range(SHARDS)])["set_sha256"])
    finally:
        torch.set_num_threads(threads)


def finished_hash(root: Path) -> str:
    lines = [line for line in root.with_suffix(".log").read_text().splitlines() if line.startswith("{")]
    summary = json.loads(lines[-1])
    assert summary["rows"] == summary["ok"] == SHARDS * 10
    return str(summary["set_sha256"])


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
