"""A sweep's states, counts and ends without a Ray; tests/tune/test_sweep.py runs whole ones."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.image_set import published_shards
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import RESULT, SweepConfig
from pipeline.stages import sweep as module
from pipeline.stages.generate import publish_manifest
from pipeline.stages.sweep import Sweep
from pipeline.stages.sweep_trial import EPOCH, SweepJob
from tests.image_sets import small_config, write_image_set

SETTINGS = SweepConfig.model_validate({"space": {"train.learning_rate": {"choice": [0.4]}}, "search": "grid"})
NOTHING = {
    "best": None,
    "failed": 2,
    "trials": [{"trial": "a", "state": "failed", "reason": "", "model_dir": ""},
               {"trial": "b", "state": "failed", "reason": "no such model", "model_dir": ""}],
}  # fmt: skip


def small_sweep(root: Path, **train: Any) -> Sweep:
    return Sweep(SETTINGS, small_config(**train), Store.open(str(root)), "x")


def trial(sweep: Sweep, epochs: int) -> Any:
    metrics = {"done": True, EPOCH: epochs, "val_accuracy": 0.3}
    found = SimpleNamespace(metrics=metrics, config={"train.learning_rate": "0.4"}, error=None, path="tune/a")
    return sweep._trial(SweepJob(sweep.settings, sweep.base, sweep.store), found)


def test_a_sweep_without_a_result_fails_each_time_it_is_asked(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    sweep._begin()
    sweep.store.write_json(f"{sweep.directory}/{RESULT}", NOTHING)
    for _ in range(2):
        with pytest.raises(WorkError, match=r"none of the 2 trials .* no such model; .*--retry-failed"):
            small_sweep(tmp_path).run(lambda _: None)


def test_a_stopped_trial_is_not_finished_because_its_twin_is(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, epochs=8)
    config = SweepJob(sweep.settings, sweep.base, sweep.store).config({"train.learning_rate": 0.4})
    directory = model_directory(model_identity(config, resolve_recipe(config))[1])
    sweep.store.write_json(f"{directory}/manifest.json", {})
    assert trial(sweep, 2).state == "stopped early" and trial(sweep, 8).state == "finished"


@pytest.mark.parametrize(("data", "asked"), [("mixed", 90), ("real", 0)])  # whole shards of 30
def test_images_are_counted_for_every_training_that_reads_some(tmp_path: Path, data: str, asked: int) -> None:
    sweep = small_sweep(tmp_path, data=data, epochs=8)
    recipe = write_image_set(sweep.base, sweep.store)
    publish_manifest(sweep.base, recipe, sweep.store, sorted(published_shards(sweep.store, recipe.images_dir)))
    sweep._begin()
    facts = sweep._facts(SweepJob(sweep.settings, sweep.base, sweep.store), [trial(sweep, 8)])
    assert facts["images_asked"] == asked


def test_of_two_calls_of_one_sweep_the_second_waits_and_finds_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []

    def search(self: Sweep, *_: Any, **__: Any) -> dict[str, Any]:
        searched.append(1)
        time.sleep(1)
        facts = {"best": {"trial": "a"}, "failed": 0, "trials": []}
        self.store.write_json(f"{self.directory}/{RESULT}", facts)
        return facts

    monkeypatch.setattr(module.Sweep, "_search", search)
    found: list[dict[str, Any]] = []
    calls = [threading.Thread(target=lambda: found.append(small_sweep(tmp_path).run(lambda _: None))) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join(60)
    assert len(searched) == 1 and len(found) == 2 and found[0] == found[1]
