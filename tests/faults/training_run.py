"""One small training as a user starts it, to be killed: its command, what it has done, its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.stages.train import read_metrics
from tests.bare_training import train_in_processes
from tests.conftest import REPOSITORY
from tests.image_sets import NO_MODEL

EPOCHS = 6
IMAGES = 80
START_TIMEOUT_S = 200
END_TIMEOUT_S = 250
Metrics = list[dict[str, float]]


class TrainingRun:
    """`jobs.train` on 80 real images with two workers; `settings` lie over `train.…`."""

    def __init__(self, directory: Path, checkpoint_every_epochs: int = 1, **settings: object) -> None:
        self.root, self.log, self._directory = directory / "runs", directory / "log", directory
        self._settings = {
            "train.data": "real",
            "train.epochs": EPOCHS,
            "train.batch_size": 16,
            "train.checkpoint_every_epochs": checkpoint_every_epochs,
            "tracking.enabled": "false",
            "recipe.model.id": NO_MODEL["id"],
            "recipe.model.revision": NO_MODEL["revision"],
            "images_per_class": 8,
            **{f"train.{name}": value for name, value in settings.items()},
        }

    @property
    def _words(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._settings.items()]

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """The command, its output added to `log`."""
        command = [sys.executable, "-m", "jobs.train", "--preset", "fashion", "--root", str(self.root)]
        command += [part for word in self._words for part in ("--set", word)]
        with open(self.log, "a") as output:
            return subprocess.Popen(
                command, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )

    def wait_for_epochs(self, process: subprocess.Popen[bytes], epochs: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.epochs_done() < epochs:
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def wait_for_end(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(timeout=END_TIMEOUT_S) == 0, self.log.read_text()

    def epochs_done(self) -> int:
        path = next(iter(self.root.glob("models/*/metrics.jsonl")), None)
        return path.read_text().count("\n") if path else 0

    def resumed(self) -> list[tuple[int, int]]:
        """(epochs that were done, workers) of every time that it went on."""
        lines = [
            line.split("going on after epoch ")[1] for line in self.log.read_text().splitlines() if "going on" in line
        ]
        return [(int(line.split()[0]), int(line.split(" with ")[1].split()[0])) for line in lines]

    def metrics(self) -> Metrics:
        (path,) = self.root.glob("models/*/metrics.jsonl")
        return read_metrics(Store.open(str(self.root)), f"models/{path.parent.name}")

    def undisturbed(self) -> Metrics:
        """What the same training comes to in processes of torch.distributed alone."""
        return train_in_processes(load_config("fashion", overrides=self._words), self._directory)


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
