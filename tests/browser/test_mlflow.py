"""The view that a sweep saves, in MLflow's own pages: its format is theirs and stands nowhere but in their scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.mlflow_view import VIEW_TAG, how_to_open, sweep_view, view_path
from pipeline.stages.tracking import tracked_run
from tests.browser.chromium import Browser
from tests.browser.mlflow_pages import see
from tests.mlflow_servers import MlflowServer


@pytest.mark.slow  # the server alone takes half a minute to start on two busy cores
def test_the_saved_view_draws_the_trials_and_no_other_run(browser: Browser, tmp_path: Path) -> None:
    server = MlflowServer(tmp_path)
    server.start()
    try:
        config = RunConfig(tracking=TrackingConfig(uri=server.uri))
        store = Store.open(str(tmp_path / "runs"))
        with tracked_run(config, store, "sweep", "s", {}, {}, folder="sweeps/x") as sweep:
            for number in range(12):  # MLflow shows ten runs unless told otherwise
                params = {
                    "train": {"learning_rate": 0.1 * (number + 1)},
                    "recipe": {"template": "c, d_c"[: 1 + number % 6]},
                }
                with tracked_run(config, store, "train", f"t{number:07d}", params, {}, parent_run=sweep.run_id) as run:
                    for epoch in (1, 2):
                        run.log_metrics({"val_accuracy": 0.1 * epoch + 0.05 * number, "loss": 2.0 / epoch}, epoch)
                    run.log_metrics({"cost_device_s": 3.0 + number}, 2)
            key = str(sweep.run_id)
            settings = ["train.learning_rate", "recipe.template"]
            experiment = sweep.set_experiment_tag(f"{VIEW_TAG}{key}", sweep_view("Sweep x", key, settings, 1.0))
        assert experiment is not None
        url = how_to_open(server.uri, view_path(experiment, key))
        value = see(browser, url, "document.querySelectorAll('.js-plotly-plot').length >= 3", height=1600)["value"]
    finally:
        server.kill()
    assert "12 matching runs" in value["text"] and "sweep-s" not in value["text"]
    assert "Sweep x: settings\n(1)" in value["text"] and "Sweep x: curves\n(3)" in value["text"]
    assert value["axes"] and len(value["axes"]) == 4 and "val_accuracy" in value["axes"]
