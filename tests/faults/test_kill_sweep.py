"""Kill a sweep's trial, driver, image maker or node: what is done is kept, what ran goes on, it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.conftest import REPOSITORY
from tests.faults.ray_nodes import RayNodes
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


def start(words: list[str], log: Path, slots: int = 2, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tune.sweep", *words, "--slots", f"{slots}", "--json"]
    env = {**os.environ, **environment}
    with open(log, "ab") as file:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=file, stderr=file, start_new_session=True, env=env)


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
    trial = wait_for(r"RayTrainWorker pid=(\d+)\)\S* train .*: epoch 3/", log, process)
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
    assert_one_point_an_epoch(root, {found["model_dir"].removeprefix("models/") for found in facts["trials"]})
    newest = max((root / "sweeps" / "small" / "tune").glob("searcher-state-*.pkl"))
    history = cloudpickle.loads(newest.read_bytes())["_ot_study"]
    assert len(history.trials) == 4 and all(trial.state.is_finished() for trial in history.trials)


def assert_one_point_an_epoch(root: Path, models: set[str]) -> None:
    """Every training's MLflow run lies under the sweep's, and has each epoch once."""
    client = MlflowClient(f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    (parent,) = [run for run in runs if run.data.tags["synthclones.job"] == "sweep"]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["synthclones.artifact_id"] for run in nested} == models
    for run in nested:
        points = client.get_metric_history(run.info.run_id, "val_accuracy")
        points.sort(key=lambda point: point.timestamp)  # some came late, by the training that went on
        assert [point.step for point in points] == list(range(1, EPOCHS + 1))
        assert run.info.status == "FINISHED"


def test_a_killed_holder_of_a_set_has_no_image_made_twice(tiny_model: Path, tmp_path: Path) -> None:
    """Three trials want one set at once; whoever makes it dies, and another one makes the rest."""
    half = ["generate.num_cpus_per_actor=0.5", "train.num_cpus_per_worker=0.5"]  # three slots on two CPUs
    space = {
        "search": "random",
        "num_trials": 3,
        "validation": {"images_per_class": 4},
        "max_failures": 1,
        "base": ["train.epochs=1", "generate.num_actors=1", "images_per_class=80", *half],
        "space": {"train.learning_rate": SPACE["space"]["train.learning_rate"]},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    root, log, trace = tmp_path / "runs", tmp_path / "log", tmp_path / "trace"
    path = os.pathsep.join([str(REPOSITORY / "tests" / "faults" / "trace"), str(REPOSITORY)])
    words = [*training_options(root, tiny_model), "--space", str(tmp_path / "small.yaml")]
    process = start(words, log, 3, SOAK_TRACE=str(trace), PYTHONPATH=path)
    deadline = time.monotonic() + TIMEOUT_S
    while len(read_trace(trace, "end")) < 3 or len(list((root / "images").glob("*/lease/ticket-*"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None, log.read_text()
        time.sleep(0.05)
    holder = json.loads(min((root / "images").glob("*/lease/ticket-*")).read_text())["pid"]
    os.kill(holder, signal.SIGKILL)
    struck = time.time()
    assert process.wait(TIMEOUT_S) == 0, log.read_text()
    facts = json.loads(log.read_text().splitlines()[-1])
    assert (facts["finished"], facts["failed"]) == (3, 0) and facts["images_made"] == 800, facts
    begun, ended = read_trace(trace, "begin"), read_trace(trace, "end")
    done = {(shard, pid) for shard, pid, when in ended if when < struck}
    in_hand = {shard for shard, pid, when in begun if when < struck and (shard, pid) not in done}
    made = Counter(shard for shard, _, _ in ended)
    assert set(made) == set(range(40)) and len({pid for _, pid, _ in ended}) == 2
    assert {shard for shard, count in made.items() if count > 1} <= in_hand and max(made.values()) <= 2


def read_trace(trace: Path, event: str) -> list[tuple[int, int, float]]:
    """(shard, pid, time) of every shard that was begun or ended."""
    lines = [line.split() for line in trace.read_text().splitlines()] if trace.exists() else []
    return [(int(shard), int(pid), float(when)) for what, shard, pid, when in lines if what == event]


def test_a_killed_node_costs_no_trial(tiny_model: Path, tmp_path: Path) -> None:
    space = {**SPACE, "search": "random", "max_failures": 2}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    root, log = tmp_path / "runs", tmp_path / "log"
    words = [*training_options(root, tiny_model), "--space", str(tmp_path / "small.yaml")]
    nodes = RayNodes(3)
    try:
        process = start(words, log, 3, RAY_ADDRESS=nodes.address)
        training = wait_for(r"RayTrainWorker pid=(\d+)[^)]*\)\S* train .*: epoch 3/", log, process)
        node = nodes.worker_of(int(training[1]))
        assert node is not None
        nodes.kill_worker(node)
        nodes.add_worker()
        assert process.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        nodes.close()
    facts = json.loads(log.read_text().splitlines()[-1])
    assert (facts["finished"], facts["failed"]) == (4, 0), facts
