"""Kill a sweep's trial, then its driver, and start it again: what is done is kept, what ran goes on, it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.tiny_sets import training_options

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3000)]
TIMEOUT_S = 1200
EPOCHS = 12
SPACE: dict[str, Any] = {
    "search": "tpe",
    "num_trials": 4,
    "num_random_trials": 2,
    "objectives": ["accuracy", "cost"],
    "validation": {"source": "synthetic", "images_per_class": 4},
    "max_failures": 1,
    "base": [f"train.epochs={EPOCHS}", "train.checkpoint_every_epochs=1", "generate.num_actors=1"],
    "space": {
        "recipe.guidance_scale": {"choice": [1.0, 2.0]},
        "images_per_class": {"choice": [4, 8]},
        "train.learning_rate": {"loguniform": [0.1, 0.8]},
    },
}


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        command = [sys.executable, "-m", "tune.sweep", *words, "--slots", "2", "--json"]
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=file, start_new_session=True)


def wait_for(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> re.Match[str]:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        if found := re.search(pattern, log.read_text()):
            return found
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    raise AssertionError(f"no {pattern} in {log.read_text()}")


def kill_all(process: subprocess.Popen[bytes]) -> None:
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_a_killed_trial_and_a_killed_driver_cost_no_result(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    root, log = tmp_path / "runs", tmp_path / "log"
    words = [*training_options(root, tiny_model), "--space", str(tmp_path / "small.yaml")]
    process = start(words, log)
    trial = wait_for(r"RayTrainWorker pid=(\d+)\)\S* train: epoch 3/", log, process)
    worker = psutil.Process(int(trial[1]))
    first = [c for c in psutil.Process(process.pid).children(recursive=True) if "ImplicitFunc" in c.name()]
    assert worker.is_running() and first, "no trial's process is known by its name"
    os.kill(first[0].pid, signal.SIGKILL)
    wait_for(r"sweep: trial \w+ ended", log, process)
    time.sleep(6)  # Ray Tune writes its state every 5 s
    kill_all(process)
    ended = set(re.findall(r"sweep: trial (\w+) ended", log.read_text()))
    again = tmp_path / "log2"
    process = start(words, again)
    assert process.wait(TIMEOUT_S) == 0, again.read_text()
    facts = json.loads(again.read_text().splitlines()[-1])
    assert (facts["finished"], facts["failed"]) == (4, 0), facts
    assert ended and not ended & set(re.findall(r"sweep: trial (\w+) ended", again.read_text()))
    for found in facts["trials"]:
        lines = (root / found["model_dir"] / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, EPOCHS + 1))
    assert "going on after epoch" in log.read_text() + again.read_text()
    shards = len(list((root / "images").glob("*/shards/*.parquet"))) - 2  # those of the validation set
    assert facts["images_made"] == 20 * shards and facts["images_reused"] > 0
    assert not list((root / "images").glob("*/lease/*"))
