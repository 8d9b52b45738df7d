"""The chain's own logic, with stages that only note that they ran; tests/faults/test_kill_demo.py runs real ones."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import WorkError
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.stages import chain
from tests.image_sets import small_config


class Stages:
    """Leaves the manifests that the real stages leave."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.failing: str | None = None
        monkeypatch.setattr(chain, "ray_session", lambda **_: nullcontext())
        monkeypatch.setattr(chain, "ensure_prompt_table", lambda *_: {"rows": 80, "distinct_prompts": 10})
        monkeypatch.setattr(chain, "generate", self.generate)
        monkeypatch.setattr(chain, "train_side_by_side", self.train)
        monkeypatch.setattr("pipeline.stages.evaluate.evaluate", self.evaluate)
        monkeypatch.setattr(chain, "num_slots", lambda _: 4)

    def note(self, name: str) -> None:
        self.ran.append(name)
        if name == self.failing:
            raise WorkError("stopped")

    def generate(self, config: RunConfig, store: Store) -> dict[str, Any]:
        self.note("generate")
        store.write_json(f"{resolve_recipe(config).images_dir}/manifest.json", {})
        counts = {"ok": 80, "rows": 80, "images_made": 80}
        return {**counts, "set_sha256": "ab", "images_per_s": 20.5, "mlflow_run_id": "g"}

    def train(self, configs: list[RunConfig], store: Store, slots: int):
        assert slots == 2
        for position, config in reversed(list(enumerate(configs))):  # they need not end in order
            self.note(f"train {config.train.data}")
            directory = model_directory(model_identity(config, resolve_recipe(config))[1])
            store.write_json(f"{directory}/manifest.json", {})
            numbers = {"epochs": 2, "accuracy": 0.5, "seconds": 3.0, "images_per_s": 100.0 + position}
            yield position, {**numbers, "model_dir": directory, "mlflow_run_id": config.train.data}

    def evaluate(self, config: RunConfig, store: Store, model_dirs: dict[str, list[str]], say: Any) -> dict[str, Any]:
        self.note("evaluate")
        store.write_bytes("reports/0/report.html", b"<!doctype html>")
        scores = {"synthetic_top1": 0.7, "real_top1": 0.75, "gap": 0.05, "test_images": 10000}
        return {**scores, "report": "reports/0/report.html", "mlflow_run_id": "e"}


ALL = ["generate", "train real", "train synthetic", "evaluate"]


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def test_the_summary_holds_what_was_promised(stages: Stages, store: Store) -> None:
    summary = chain.run_chain(small_config(), store, print)
    assert stages.ran == ALL
    expected = {
        "images": 80, "synthetic_top1": 0.7, "real_top1": 0.75, "gap": 0.05, "generate_images_per_s": 20.5,
        "train_images_per_s": 201.0, "set_sha256": "ab", "mlflow_run_id": "e", "trainings_side_by_side": 2,
    }  # fmt: skip
    assert expected.items() <= summary.items()
    assert set(summary["seconds"]) == {"prompts", "generate", "train", "evaluate"}
    assert Path(summary["report"]).read_bytes() == b"<!doctype html>" and summary == store.read_json("summary.json")


def test_a_finished_chain_does_nothing_and_says_the_same(stages: Stages, store: Store) -> None:
    first = chain.run_chain(small_config(), store, print)
    stages.ran.clear()
    assert chain.run_chain(small_config(), store, print) == first and stages.ran == []


@pytest.mark.parametrize("lost", ["report.html", "images/*/manifest.json", "models/*/manifest.json"])
def test_what_is_lost_is_made_again(stages: Stages, store: Store, lost: str) -> None:
    chain.run_chain(small_config(), store, print)
    next(Path(store.root).glob(lost)).unlink()
    stages.ran.clear()
    chain.run_chain(small_config(), store, print)
    assert stages.ran == ALL


@pytest.mark.parametrize("change", [{"images_per_class": 9}, {"evaluate": {"num_calibration_bins": 9}}])
def test_another_config_is_another_chain(stages: Stages, store: Store, change: dict[str, Any]) -> None:
    first = chain.run_chain(small_config(), store, print)
    stages.ran.clear()
    other = RunConfig.model_validate({**small_config().model_dump(), **change})
    assert chain.run_chain(other, store, print)["chain_id"] != first["chain_id"] and stages.ran == ALL


@pytest.mark.parametrize("stage", ALL)
def test_a_failed_stage_leaves_no_summary_and_its_time_counts(stages: Stages, store: Store, stage: str) -> None:
    stages.failing = stage
    with pytest.raises(WorkError, match="stopped"):
        chain.run_chain(small_config(), store, print)
    assert not store.exists("summary.json")
    clock = next(Path(store.root).glob("clocks/*.json")).name
    store.write_json(f"clocks/{clock}", {**store.read_json(f"clocks/{clock}"), stage.split()[0]: 1000.0})
    stages.failing = None
    assert chain.run_chain(small_config(), store, print)["seconds"][stage.split()[0]] >= 1000
