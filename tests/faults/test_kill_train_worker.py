"""SIGKILL one training worker in the middle: the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.stages.train import read_metrics
from tests.bare_training import train_in_processes
from tests.conftest import REPOSITORY
from tests.image_sets import NO_MODEL

EPOCHS = 6
START_TIMEOUT_S = 200
END_TIMEOUT_S = 250


def find_metrics(root: Path) -> Path | None:
    return next(iter(root.glob("models/*/metrics.jsonl")), None)


def epochs_done(root: Path) -> int:
    path = find_metrics(root)
    return path.read_text().count("\n") if path else 0


def training_workers(pid: int) -> list[int]:
    """Pids of the Ray Train workers that descend from a process; Ray names its processes after what they run."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if any("RayTrainWorker" in part for part in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), -1])
def test_run_finishes_after_a_worker_was_killed(victim: int, tmp_path: Path) -> None:
    root, log = tmp_path / "runs", tmp_path / "log"
    settings = {
        "train.data": "real",
        "train.epochs": EPOCHS,
        "train.batch_size": 16,
        "train.checkpoint_every_epochs": 1,
        "tracking.enabled": "false",
        "recipe.model.id": NO_MODEL["id"],
        "recipe.model.revision": NO_MODEL["revision"],
    }
    command = [
        sys.executable,
        "-m",
        "jobs.train",
        "--preset",
        "fashion",
        "--images-per-class",
        "8",
        "--root",
        str(root),
    ]
    command += [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with open(log, "w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env=os.environ)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while epochs_done(root) < 2:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        workers = sorted(training_workers(process.pid))
        assert len(workers) == 2, workers
        os.kill(workers[victim], signal.SIGKILL)
        assert process.wait(timeout=END_TIMEOUT_S) == 0, log.read_text()
    finally:
        process.kill()
    text = log.read_text()
    resumed = [
        int(line.split("going on after epoch ")[1].split()[0]) for line in text.splitlines() if "going on" in line
    ]
    assert len(resumed) == 1, text
    assert 1 <= resumed[0] < EPOCHS, text
    path = find_metrics(root)
    assert path is not None
    metrics = read_metrics(Store.open(str(root)), f"models/{path.parent.name}")
    assert [line["epoch"] for line in metrics] == list(range(1, EPOCHS + 1))
    assert [line["images"] for line in metrics] == [80] * EPOCHS
    overrides = ["images_per_class=8", *(f"{name}={value}" for name, value in settings.items())]
    undisturbed = train_in_processes(load_config("fashion", overrides=overrides), tmp_path)
    assert [line["loss"] for line in metrics] == pytest.approx([line["loss"] for line in undisturbed], rel=1e-6)
