"""What of a report that is there counts, when its models are evaluated again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.stages.evaluate import evaluate
from tests.conftest import SaveModel


@pytest.fixture
def config(noise_folder: Path) -> RunConfig:
    settings = EvaluateConfig.model_validate({"test_set": str(noise_folder), "batch_size": 8, "torch_threads": 1})
    return RunConfig(evaluate=settings, tracking=TrackingConfig(enabled=False))


def report(config: RunConfig, store: Store, *models: str) -> dict[str, Any]:
    return evaluate(config, store, {"synthetic": list(models)}, lambda _: None)


@pytest.mark.parametrize("removed", ["report", "metrics"])
def test_a_removed_page_is_made_again(removed: str, config: RunConfig, store: Store, save_model: SaveModel) -> None:
    model = save_model(store, "synthetic")
    found = report(config, store, model)
    path = Path(store.root, found[removed])
    before = store.read_json(found["metrics"])
    path.unlink()
    assert report(config, store, model)["report_id"] == found["report_id"]
    assert path.is_file() and store.read_json(found["metrics"]) == before


def test_a_model_that_was_trained_again_has_a_report_of_its_own_numbers(
    config: RunConfig, store: Store, save_model: SaveModel
) -> None:
    def sureness(model: str) -> float:
        """Random models all guess one class, but each with its own confidence."""
        metrics = store.read_json(report(config, store, model)["metrics"])
        return float(metrics["groups"]["synthetic"]["calibration_error_mean"])

    one, other = (save_model(store, "synthetic", seed) for seed in (0, 1))
    before = sureness(one)
    store.write_bytes(f"{one}/model.safetensors", store.read_bytes(f"{other}/model.safetensors"))
    assert sureness(one) == sureness(other) != before


def test_an_older_report_that_does_not_tell_its_weights_stays(
    config: RunConfig, store: Store, save_model: SaveModel
) -> None:
    model = save_model(store, "synthetic")
    found = report(config, store, model)
    path = f"reports/{found['report_id']}/manifest.json"
    store.write_json(path, {name: value for name, value in found.items() if name != "weights"})
    assert "weights" not in report(config, store, model)


def test_a_report_that_has_to_be_made_again_needs_no_mlflow(
    config: RunConfig, store: Store, save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = save_model(store, "synthetic")
    Path(store.root, report(config, store, model)["report"]).unlink()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    tracked = config.model_copy(update={"tracking": TrackingConfig(enabled=True)})
    assert Path(store.root, report(tracked, store, model)["report"]).is_file()
