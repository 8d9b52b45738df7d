"""One cluster for several users: a generation, a training and a sweep side by side, none of which starves another."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_head import ClusterHead
from tests.tiny_sets import options, training_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SPACE = """
search: random
num_trials: 4
validation: {images_per_class: 20}
base: [train.epochs=6, train.data=real, generate.num_actors=1]
space: {train.learning_rate: {loguniform: [0.1, 0.8]}}
"""


@pytest.fixture
def head(request: pytest.FixtureRequest) -> Iterator[ClusterHead]:
    """A cluster of as many CPUs as the test says."""
    started = ClusterHead(request.param)
    yield started
    started.close()


def send(head: ClusterHead, module: str, root: Path, words: list[str]) -> subprocess.Popen[bytes]:
    """Send a job and follow it, with a log beside its root."""
    command = [sys.executable, "-m", "jobs.submit", "--address", head.address, "--num-cpus", "0", "--"]
    return head.start([*command, "python", "-m", module, *words], log_file(root))


def log_file(root: Path) -> Path:
    return root.with_suffix(".log")


def shards(root: Path) -> int:
    return len(list(root.glob("images/*/shards/shard-*.parquet")))


def epochs(root: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in root.glob("models/*/metrics.jsonl"))


def real_training(root: Path, model: Path, epochs: int, workers: int) -> list[str]:
    more = {"train.data": "real", "train.epochs": epochs, "train.num_workers": workers, "tracking.enabled": "false"}
    return [*training_options(root, model), *(word for key, v in more.items() for word in ("--set", f"{key}={v}"))]


def ends(process: subprocess.Popen[bytes], root: Path, timeout_s: float = 1500) -> float:
    assert process.wait(timeout_s) == 0, log_file(root).read_text()[-6000:]
    return time.time()


@pytest.mark.parametrize("head", [6], indirect=True)
def test_a_generation_a_training_and_a_sweep_progress_side_by_side(
    head: ClusterHead, tiny_model: Path, tmp_path: Path
) -> None:
    made, trained, swept = (tmp_path / name for name in ("made", "trained", "swept"))
    (tmp_path / "space.yaml").write_text(SPACE)
    images = {"images_per_class": 150, "recipe.num_inference_steps": 30, "generate.num_actors": 2}
    jobs = {
        made: send(head, "jobs.generate", made, options(tiny_model, made, images)),
        trained: send(head, "jobs.train", trained, real_training(trained, tiny_model, 60, 1)),
        swept: send(head, "tune.sweep", swept, [*real_training(swept, tiny_model, 6, 1),
                                          "--slots", "2", "--space", str(tmp_path / "space.yaml")]),
    }  # fmt: skip
    progress = {made: shards, trained: epochs, swept: epochs}
    deadline = time.monotonic() + 900
    while not all(seen(root) for root, seen in progress.items()):
        for root, job in jobs.items():
            assert job.poll() is None, f"{root.name} ended alone: {log_file(root).read_text()[-6000:]}"
        assert time.monotonic() < deadline, {root.name: seen(root) for root, seen in progress.items()}
        time.sleep(0.5)
    for root, job in jobs.items():
        ends(job, root)


@pytest.mark.parametrize("head", [4], indirect=True)
def test_a_training_waits_for_a_pool_that_holds_all_and_starts_when_it_ends(
    head: ClusterHead, tiny_model: Path, tmp_path: Path
) -> None:
    made, trained = tmp_path / "made", tmp_path / "trained"
    images = {"images_per_class": 3000, "recipe.num_inference_steps": 30, "generate.max_actors": 8}
    generation = send(head, "jobs.generate", made, options(tiny_model, made, images))
    while shards(made) < 20:
        assert generation.poll() is None, log_file(made).read_text()[-6000:]
        time.sleep(0.5)
    training = send(head, "jobs.train", trained, real_training(trained, tiny_model, 1, 2))
    while "in use by other jobs: waiting until they end" not in log_file(trained).read_text():
        assert generation.poll() is None and training.poll() is None, log_file(trained).read_text()[-6000:]
        time.sleep(0.5)
    (name,) = re.findall(r"sent: (\S+) at", log_file(made).read_text())
    assert head.ray_job("stop", name).returncode == 0
    stopped_s = time.time()
    print(f"trained {ends(training, trained) - stopped_s:.0f} s after the generation had been stopped")
    assert "Traceback" not in log_file(trained).read_text()
