"""The saved view of a sweep in a real database; tests/browser/test_mlflow.py sees it in MLflow's pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.mlflow_view import VIEW_TAG
from pipeline.core.sweep_config import SweepConfig
from pipeline.core.sweep_report import TrialResult
from pipeline.stages.run_handle import RunHandle, mlflow_client
from pipeline.stages.sweep_runs import save_charts
from pipeline.stages.sweep_trial import SweepJob
from pipeline.stages.tracking import tracked_run
from tests.image_sets import small_config

SPACE = {"train.learning_rate": {"choice": [0.1, 0.4]}, "train.ema_decay": {"choice": [None, 0.9]}}
SETTINGS = SweepConfig.model_validate({"search": "grid", "space": SPACE})


def result(rate: float, accuracy: float | None) -> TrialResult:
    point = {"train.learning_rate": rate, "train.ema_decay": 0.9 if rate > 0.1 else None}
    return TrialResult("a", "finished" if accuracy else "failed", point, 8, 6, accuracy, 1.0, 1.0, 1.0, "models/a")


TRIALS = [result(0.1, 0.5), result(0.4, 0.6), result(9.0, None)]


def test_a_sweep_saves_a_view_and_says_how_to_see_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    job = SweepJob(SETTINGS, small_config(), store)
    with tracked_run(RunConfig(), store, "sweep", "s", {}, {}, folder="sweeps/x") as run:
        said = save_charts(run, job, TRIALS, "x", 1.0)
    client = mlflow_client(str(run.uri))
    experiment = client.get_experiment_by_name("synthclones/sweeps/x")
    state = json.loads(json.loads(experiment.tags[f"{VIEW_TAG}{run.run_id}"])["state"])
    assert state["compareRunCharts"][0]["selectedParams"] == ["train.learning_rate"]  # one run has no ema_decay
    path = f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey={run.run_id}&"
    assert said is not None and f"mlflow ui --backend-store-uri '{run.uri}', then http://127.0.0.1:5000/{path}" in said
    assert path in client.get_run(run.run_id).data.tags["mlflow.note.content"]


def test_a_server_that_is_away_is_one_line_and_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = SweepJob(SETTINGS, small_config(), Store.open(str(tmp_path)))
    assert save_charts(RunHandle("http://127.0.0.1:9", "0" * 32), job, TRIALS, "x", 1.0) is None
    (line,) = [record.message for record in caplog.records if record.name.startswith("pipeline")]
    assert "is not kept in MLflow at http://127.0.0.1:9" in line and "\n" not in line
    assert save_charts(RunHandle(None, None), job, TRIALS, "x", 1.0) is None
