"""One cluster for several users: a generation, a training and a sweep side by side, none of which starves another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
Sent = Callable[[str, Path, list[str]], subprocess.Popen[bytes]]


@pytest.fixture
def send(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Sent]:
    """Send a job to a cluster of as many CPUs as the test says, each with a log beside its root."""
    head = ClusterHead(request.param)

    def start(module: str, root: Path, words: list[str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "jobs.submit", "--address", head.address, "--num-cpus", "0", "--"]
        return head.start([*command, "python", "-m", module, *words], root.with_suffix(".log"))

    yield start
    head.close()


def shards(root: Path) -> int:
    return len(list(root.glob("images/*/shards/shard-*.parquet")))


def epochs(root: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in root.glob("models/*/metrics.jsonl"))


def real_training(root: Path, model: Path, epochs: int, workers: int) -> list[str]:
    more = {"train.data": "real", "train.epochs": epochs, "train.num_workers": workers, "tracking.enabled": "false"}
    return [*training_options(root, model), *(word for key, v in more.items() for word in ("--set", f"{key}={v}"))]


def ends(process: subprocess.Popen[bytes], root: Path, timeout_s: float = 1500) -> float:
    assert process.wait(timeout_s) == 0, root.with_suffix(".log").read_text()[-6000:]
    return time.time()


@pytest.mark.parametrize("send", [6], indirect=True)
def test_a_generation_a_training_and_a_sweep_progress_side_by_side(send: Sent, tiny_model: Path, tmp_path: Path):
    made, trained, swept = (tmp_path / name for name in ("made", "trained", "swept"))
    (tmp_path / "space.yaml").write_text(SPACE)
    images = {"images_per_class": 150, "recipe.num_inference_steps": 30, "generate.num_actors": 2}
    jobs = {
        made: send("jobs.generate", made, options(tiny_model, made, images)),
        trained: send("jobs.train", trained, real_training(trained, tiny_model, 60, 1)),
        swept: send("tune.sweep", swept, [*real_training(swept, tiny_model, 6, 1),
                                          "--slots", "2", "--space", str(tmp_path / "space.yaml")]),
    }  # fmt: skip
    progress = {made: shards, trained: epochs, swept: epochs}
    deadline = time.monotonic() + 900
    while not all(seen(root) for root, seen in progress.items()):
        for root, job in jobs.items():
            assert job.poll() is None, f"{root.name} ended alone: {root.with_suffix('.log').read_text()[-6000:]}"
        assert time.monotonic() < deadline, {root.name: seen(root) for root, seen in progress.items()}
        time.sleep(0.5)
    for root, job in jobs.items():
        ends(job, root)


@pytest.mark.parametrize("send", [4], indirect=True)
def test_a_pool_without_a_limit_gives_way_to_a_later_training(send: Sent, tiny_model: Path, tmp_path: Path) -> None:
    made, trained = tmp_path / "made", tmp_path / "trained"
    images = {"images_per_class": 3000, "recipe.num_inference_steps": 30, "generate.max_actors": 8}
    generation = send("jobs.generate", made, options(tiny_model, made, images))  # it must outlast the training
    while shards(made) < 20:
        assert generation.poll() is None, made.with_suffix(".log").read_text()[-6000:]
        time.sleep(0.5)
    sent_s = time.time()
    training = send("jobs.train", trained, real_training(trained, tiny_model, 1, 2))
    trained_s = ends(training, trained) - sent_s
    assert generation.poll() is None, "the generation was too short to be in the way"
    print(f"trained {trained_s:.0f} s after it was sent, beside a pool that had taken all CPUs")
    generation.kill()
