"""A small study whose stages only note that they ran."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.errors import WorkError
from pipeline.core.model_identity import WEIGHTS, model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.report_identity import report_identity
from pipeline.core.study_config import StudyConfig
from pipeline.core.study_plan import plan_study
from pipeline.core.test_set_opening import open_test_sets
from pipeline.stages import study as module
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
        self.pairs: list[dict[str, int]] = []
        self.stop_after = 99
        self.parents: list[str | None] = []
        monkeypatch.setattr(module, "ray_session", nullcontext)
        monkeypatch.setattr(module, "generate", self.generate)
        monkeypatch.setattr(module, "train_side_by_side", self.train)
        # Drawn after every training; tests/core/test_study_report.py looks at it.
        monkeypatch.setattr(module, "plot_png", lambda _table, _title: b"\x89PNG")
        monkeypatch.setattr("pipeline.stages.evaluate.evaluate", self.evaluate)
        monkeypatch.setattr("pipeline.stages.study_pages.evaluate", self.evaluate)

    def generate(self, config: RunConfig, store: Store) -> dict[str, Any]:
        self.made.append((config.recipe.guidance_scale, config.images_per_class))
        manifest = {"images_per_class": config.images_per_class, "ok": 1}
        store.write_json(f"{resolve_recipe(config).images_dir}/manifest.json", manifest)
        return manifest

    def train(self, configs: list[RunConfig], store: Store, slots: int, parent_run: str | None, prepare: Any):
        assert slots == 2
        self.parents.append(parent_run)
        for position, config in enumerate(configs):
            if len(self.trained) == self.stop_after:
                raise WorkError("stopped")
            prepare(position)
            what = (config.train.data, config.recipe.guidance_scale, config.images_per_class, config.train.seed)
            self.trained.append(what)
            directory = model_directory(model_identity(config, resolve_recipe(config))[1])
            manifest = {"files": {WEIGHTS: f"{len(self.trained)}"}, "num_images": 10 * config.images_per_class}
            if store.exists(f"{directory}/manifest.json"):  # as a real training: finished before
                manifest = store.read_json(f"{directory}/manifest.json")
            store.write_json(f"{directory}/manifest.json", manifest)
            numbers = {"epochs": config.train.epochs, "seconds": 4.0, "images_per_s": 50.0}
            yield position, {**manifest, **numbers, "model_dir": directory}

    def evaluate(
        self,
        config: RunConfig,
        store: Store,
        model_dirs: dict[str, list[str]],
        say: Any,
        parent_run: str | None = None,
    ) -> dict[str, Any]:
        sets, _ = open_test_sets(config.evaluate, load_class_table(config.classes), config.data_dir)
        _, report_id = report_identity(config.evaluate, sets, [path for found in model_dirs.values() for path in found])
        if len(model_dirs) == 2:
            self.pairs.append({group: len(found) for group, found in model_dirs.items()})
            (group,) = model_dirs.keys() - {"real"}
            paths = [path for found in model_dirs.values() for path in found]
            weights = {path: store.read_json(f"{path}/manifest.json")["files"][WEIGHTS] for path in paths}
            where = f"reports/{report_id}/report.html"
            page = {"report": where, f"{group}_top1": 0.7, "real_top1": 0.75, "weights": weights}
            store.write_bytes(page["report"], b"<p>")
            store.write_json(f"reports/{report_id}/manifest.json", page)
            return page
        ((group, (_,)),) = model_dirs.items()
        self.parents.append(parent_run)
        top1 = 0.7 + 0.01 * config.train.seed + 0.05 * (group == "real") + 0.001 * config.images_per_class
        scored = {name: {"headline": "top1", "groups": {group: {"top1": {"mean": 0.6}}}} for name in sets}
        groups = {group: {"top5_mean": 0.95}}
        metrics = {"groups": groups, "test_sets": scored, "corruptions": None}
        store.write_json(f"reports/{report_id}/metrics.json", metrics)
        where = {"report": f"reports/{report_id}/report.html", "metrics": f"reports/{report_id}/metrics.json"}
        return {f"{group}_top1": top1, "report_id": report_id, "main": next(iter(sets)), **where}


def study(store: Store, *only: str, base: RunConfig | None = None) -> Study:
    base = base or small_config()
    found = Study(plan_study(SETTINGS, base), plan_study(SETTINGS, base, only), store, "small")
    found.look_at_data(lambda _: None)
    return found


def run(store: Store, *only: str, max_cells: int | None = None) -> Study:
    found = study(store, *only)
    found.run(lambda _: None, max_cells, slots=2)
    return found
