"""A study's own logic, with stages that only note that they ran; tests/jobs/test_study.py (slow) runs a real one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import WorkError
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.study_plan import StudyConfig, plan_study
from pipeline.stages import study as module
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.study import Study
from tests.image_sets import small_config

SETTINGS = StudyConfig(
    seeds=[0, 1],
    lengths={16: ["train.epochs=1"]},
    axes={
        "guidance": {"2": ["recipe.guidance_scale=2"], "4": ["recipe.guidance_scale=4"]},
        "images": {"1x": [], "2x": ["images_per_class=16"]},
    },
)


class Stages:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[float, int]] = []
        self.trained: list[tuple[str, float, int, int]] = []
        self.stop_after = 99
        self.parents: list[str | None] = []
        monkeypatch.setattr(module, "ray_session", nullcontext)
        monkeypatch.setattr(module, "generate", self.generate)
        monkeypatch.setattr(module, "train_side_by_side", self.train)
        monkeypatch.setattr("pipeline.stages.evaluate.evaluate", self.evaluate)

    def generate(self, config: RunConfig, store: Store) -> dict[str, Any]:
        self.made.append((config.recipe.guidance_scale, config.images_per_class))
        manifest = {"images_per_class": config.images_per_class, "ok": 1}
        store.write_json(f"{resolve_recipe(config).images_dir}/manifest.json", manifest)
        return manifest

    def train(self, configs: list[RunConfig], store: Store, slots: int, parent_run: str | None):
        assert slots == 2
        self.parents.append(parent_run)
        for position, config in enumerate(configs):
            if len(self.trained) == self.stop_after:
                raise WorkError("stopped")
            what = (config.train.data, config.recipe.guidance_scale, config.images_per_class, config.train.seed)
            self.trained.append(what)
            directory = model_directory(model_identity(config, resolve_recipe(config))[1])
            numbers = {"num_images": 10 * config.images_per_class, "epochs": config.train.epochs, "seconds": 4.0}
            yield position, {**numbers, "model_dir": directory, "images_per_s": 50.0}

    def evaluate(
        self, config: RunConfig, store: Store, model_dirs: dict[str, list[str]], say: Any, parent_run: str | None
    ) -> dict[str, Any]:
        ((group, (_,)),) = model_dirs.items()
        self.parents.append(parent_run)
        top1 = 0.7 + 0.01 * config.train.seed + 0.05 * (group == "real") + 0.001 * config.images_per_class
        return {f"{group}_top1": top1, "report": "reports/0/report.html"}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


def study(store: Store, *only: str) -> Study:
    base = small_config()
    return Study(plan_study(SETTINGS, base), plan_study(SETTINGS, base, only), store, "small")


def run(store: Store, *only: str, max_cells: int | None = None) -> Study:
    found = study(store, *only)
    found.run(lambda _: None, max_cells, slots=2)
    return found


def test_every_cell_is_trained_once_per_seed_and_images_once_per_recipe(stages: Stages, store: Store) -> None:
    run(store)
    assert stages.made == [(2.0, 16), (4.0, 8)]
    cells = [("synthetic", 2.0, 8), ("synthetic", 4.0, 8), ("real", 2.0, 8), ("synthetic", 2.0, 16), ("real", 2.0, 16)]
    assert stages.trained == [(*cell, seed) for cell in cells for seed in (0, 1)]


def test_the_table_holds_the_numbers(stages: Stages, store: Store) -> None:
    run(store)
    rows = list(csv.DictReader(io.StringIO(store.read_bytes("studies/small/table.csv").decode())))
    (double,) = (row for row in rows if row["setting"] == "2x")
    assert (double["images"], double["epochs"], double["seeds"]) == ("160", "1", "2")
    assert float(double["top1_mean"]) == pytest.approx(0.721) and float(double["gap"]) == pytest.approx(0.05)
    assert "Incomplete" not in store.read_bytes("studies/small/table.md").decode()
    assert store.read_bytes("studies/small/plot.png").startswith(b"\x89PNG")


def test_stopped_it_keeps_what_is_done_and_goes_on_with_the_rest(stages: Stages, store: Store) -> None:
    stages.stop_after = 3
    with pytest.raises(WorkError, match="stopped"):
        run(store)
    assert "**Incomplete:** 7 results" in store.read_bytes("studies/small/table.md").decode()
    first, stages.trained, stages.stop_after = stages.trained, [], 99
    assert study(store).outline()["trainings_to_do"] == 7
    run(store)
    assert len(stages.trained) == 7 and not set(first) & set(stages.trained)
    stages.trained = []
    run(store)
    assert stages.trained == []


def test_trainings_and_reports_are_shown_under_the_study(
    stages: Stages, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, Any] = {}

    @contextmanager
    def tracked(_config: RunConfig, _store: Store, job: str, *_: Any, **__: Any) -> Iterator[RunHandle]:
        handle = RunHandle(None, f"run of the {job}")
        monkeypatch.setattr(handle, "log_artifact", lambda name, content: kept.update({name: content}))
        yield handle

    monkeypatch.setattr(module, "tracked_run", tracked)
    run(store)
    assert set(stages.parents) == {"run of the study"} and len(stages.parents) == 1 + 10
    assert set(kept) == {"table.md", "table.csv", "plot.png"}


def test_an_axis_alone_is_a_part_of_the_whole(stages: Stages, store: Store) -> None:
    run(store, "guidance")
    assert {what[:3] for what in stages.trained} == {("synthetic", 2.0, 8), ("synthetic", 4.0, 8), ("real", 2.0, 8)}
    assert stages.made == [(2.0, 8), (4.0, 8)]
    assert "not yet" in store.read_bytes("studies/small/table.md").decode()
    stages.trained = []
    run(store)
    assert {what[2] for what in stages.trained} == {16}


def test_max_cells_stops_after_so_many(stages: Stages, store: Store) -> None:
    run(store, max_cells=1)
    assert stages.trained == [("synthetic", 2.0, 8, 0), ("synthetic", 2.0, 8, 1)] and stages.made == [(2.0, 8)]


def test_the_outline_counts_what_is_missing_and_hours_from_measured_rates(stages: Stages, store: Store) -> None:
    before = study(store).outline()
    assert (before["cells"], before["trainings"], before["trainings_to_do"]) == (5, 10, 10)
    assert before["images_to_make"] == 160 + 80 and before["training_hours"] is None
    assert before["samples_to_train"] == 2 * (3 * 2 * 80 + 2 * 1 * 160)
    run(store, max_cells=1)
    after = study(store).outline()
    assert after["images_to_make"] == 80 + 80  # 80 of the 160 are there
    assert 0 < after["training_hours"] <= after["samples_to_train"] / 50 / 3600
