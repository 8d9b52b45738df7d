"""Kill the demo, run it again: it goes on from the last shard and ends with the same images."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from tests.conftest import REPOSITORY, Cli

SHARDS = 12
END_TIMEOUT_S = 900
LEFTOVER_TIMEOUT_S = 60

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def words(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A demo that ends in a minute: 120 images by a tiny model, one epoch, one real test image per class."""
    real = tmp_path_factory.mktemp("real")
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        (real / wnid).mkdir()
        Image.new("RGB", (32, 32), (20 * label, 0, 0)).save(real / wnid / "0.png")
    settings = {
        "recipe.model.id": tiny_model,
        "recipe.width": 16,
        "recipe.height": 16,
        "recipe.num_inference_steps": 20,
        "generate.shard_size": 10,
        "generate.batch_size": 5,
        "train.epochs": 1,
        "train.warmup_epochs": 0,
        "train.batch_size": 20,
        "evaluate.test_set": real,
    }
    sets = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return ["--images-per-class", str(SHARDS), "--json", *sets]


Start = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(words: list[str]) -> Iterator[Start]:
    """Start the demo on a root, in a process group of its own; what a failed test leaves running is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def run(root: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jobs.demo", "--root", str(root), *words]
        with open(root.with_suffix(".log"), "ab") as log:
            started.append(subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def finish(start: Start, root: Path) -> dict[str, Any]:
    process = start(root)
    log = root.with_suffix(".log")
    assert process.wait(timeout=END_TIMEOUT_S) == 0, log.read_text()
    summary: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    return summary


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the demo's process group, and see that its Ray goes with it by itself."""
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + LEFTOVER_TIMEOUT_S
    while any(is_alive(member) for member in family):
        assert time.monotonic() < deadline, [member for member in family if is_alive(member)]
        time.sleep(0.2)


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; in a container whose first process reaps nobody the dead stay as zombies."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    while not moment():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    kill(process)


def shards(root: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in root.glob("images/*/shards/shard-*.parquet")}


@pytest.fixture(scope="module")
def undisturbed_sha256(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the same recipe gives when nobody kills it."""
    root = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "jobs.generate", "--preset", "fashion_demo", "--root", str(root), *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=END_TIMEOUT_S)
    return str(json.loads(done.stdout.splitlines()[-1])["set_sha256"])


def test_killed_while_it_generates_it_goes_on_and_ends_with_the_same_images(
    start: Start, words: list[str], undisturbed_sha256: str, tmp_path: Path, cli: Cli
) -> None:
    root = tmp_path / "demo"
    kill_when(start(root), lambda: len(shards(root)) >= 3, root.with_suffix(".log"))
    published = shards(root)
    assert 3 <= len(published) < SHARDS

    summary = finish(start, root)
    after = shards(root)
    assert len(after) == SHARDS and published.items() <= after.items()  # those of the first session are untouched
    assert summary["set_sha256"] == undisturbed_sha256
    assert summary["images"] == SHARDS * 10
    assert summary["gap"] == pytest.approx(summary["real_top1"] - summary["synthetic_top1"])
    assert summary == json.loads((root / "summary.json").read_text())
    assert (root / "report.html").read_text().startswith("<!")

    start_s = time.monotonic()
    again = cli("jobs.demo", "--root", str(root), *words).check_ok()
    assert "finished already" in again.stdout and again.json == summary
    assert time.monotonic() - start_s < sum(summary["seconds"].values())


def test_killed_at_random_moments_of_all_stages_it_ends_with_the_same_images(
    start: Start, undisturbed_sha256: str, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"random seed {seed}")
    chance = random.Random(seed)
    root = tmp_path / "demo"
    kills = 0
    for _ in range(6):
        process = start(root)
        try:
            process.wait(timeout=chance.uniform(5, 60))
            break  # it was faster
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
    print(f"{kills} kills")
    summary = finish(start, root)
    assert kills > 0 and summary["set_sha256"] == undisturbed_sha256
    assert set(summary["seconds"]) == {"prompts", "generate", "train", "evaluate"}
