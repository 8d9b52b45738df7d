"""A study's own logic, with stages that only note that they ran; tests/jobs/test_study.py (slow) runs a real one."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.model_identity import WEIGHTS
from pipeline.core.study_config import StudyConfig
from pipeline.core.study_plan import plan_study
from pipeline.core.study_report import outline_text
from pipeline.stages import study as module
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.study import Study
from tests.image_sets import small_config
from tests.study_stages import SETTINGS, Stages, run, study


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def test_every_cell_is_trained_once_per_seed_and_images_are_made_when_one_wants_them(
    stages: Stages, store: Store
) -> None:
    run(store)
    assert stages.made == [(2.0, 8), (4.0, 8), (2.0, 16)]  # the first results do not wait for the largest set
    cells = [("synthetic", 2.0, 8), ("real", 2.0, 8), ("synthetic", 4.0, 8), ("synthetic", 2.0, 16), ("real", 2.0, 16)]
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


def test_two_commands_of_one_study_make_one_table(stages: Stages, store: Store) -> None:
    """Both have read the results before the other one adds to them."""
    one, other = study(store, "guidance"), study(store, "images")
    for part in (one, other):
        part.look_at_data(lambda _: None)
    for part in (one, other):
        part.run(lambda _: None, slots=2)
    table = store.read_bytes("studies/small/table.md").decode()
    assert "not yet" not in table and "Incomplete" not in table
    assert study(store).missing() == []
    assert len(stages.trained) == len(set(stages.trained)) == 10  # what they share, the second finds done


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


def test_models_of_others_are_counted_as_only_to_score(stages: Stages, store: Store) -> None:
    run(store, max_cells=1)
    elsewhere = Study(plan_study(SETTINGS, small_config()), plan_study(SETTINGS, small_config()), store, "other")
    elsewhere.look_at_data(lambda _: None)
    outline = elsewhere.outline()
    assert (outline["trainings_to_do"], outline["only_to_score"]) == (10, 2)
    assert outline["samples_to_train"] == study(store).outline()["samples_to_train"]
    assert "10 to do now (2 of them are trained already and only scored) on 1,280 samples" in outline_text(outline)


def test_a_model_that_is_there_needs_no_images(stages: Stages, store: Store, tmp_path: Path) -> None:
    run(store, max_cells=1)
    shutil.rmtree(tmp_path / "images")
    stages.made = []
    plan = plan_study(SETTINGS, small_config())
    elsewhere = Study(plan, plan, store, "other")
    elsewhere.look_at_data(lambda _: None)
    assert elsewhere.outline(max_cells=1)["images_to_make"] == 0
    elsewhere.run(lambda _: None, max_cells=1, slots=2)
    assert stages.made == [] and elsewhere.outline()["trainings_to_do"] == 8


def scored_on(test_set: Path | str, **sets: str) -> RunConfig:
    settings = EvaluateConfig.model_validate({"test_set": str(test_set), "test_sets": sets})
    return small_config().model_copy(update={"evaluate": settings})


def pictures(root: Path, value: int) -> Path:
    """A test set with one grey picture of each class."""
    for wnid in load_class_table("fashion_mnist").wnids:
        (root / wnid).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32 + value), value).save(root / wnid / "0.png")
    return root


def test_a_model_that_was_trained_again_is_scored_again(stages: Stages, store: Store) -> None:
    trained = run(store)
    path = trained.models[trained.plan.cells[0], 0]
    store.write_json(f"{path}/manifest.json", {"files": {WEIGHTS: "others"}, "num_images": 80})
    again = study(store)
    again.look_at_data(lambda _: None)
    assert (again.outline()["trainings_to_do"], again.outline()["only_to_score"]) == (1, 1)
    again.run(lambda _: None, slots=2)
    assert again.missing() == [] and study(store).missing() == []


def test_each_cell_counts_the_images_of_its_own_classes(
    stages: Stages, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StudyConfig(twins=False, axes={"classes": {"a": ["classes=imagenet100"], "b": ["classes=imagenet1k"]}})
    plan = plan_study(settings, small_config())
    table = Study(plan, plan, store, "small").write_table()
    assert "| a | 800 |" in table and "| b | 8,000 |" in table


def test_twins_that_cannot_exist_are_told_before_anything_is_made(stages: Stages, store: Store) -> None:
    settings = StudyConfig(axes={"images": {"1x": [], "many": ["images_per_class=6001"]}})
    plan = plan_study(settings, small_config())
    with pytest.raises(InputError, match=r"^real=6001 per class: images_per_class must be 1 to 6000 .*--no-twins"):
        Study(plan, plan, store, "small").run(lambda _: None, slots=2)
    assert stages.made == [] and stages.trained == []
    said: list[str] = []
    Study(plan, plan, store, "small").look_at_data(said.append, must_be_there=False)
    assert "cannot be trained: real=6001 per class" in said[0]


def test_the_second_table_holds_top5_and_the_other_test_sets(stages: Stages, store: Store, tmp_path: Path) -> None:
    base = scored_on(pictures(tmp_path / "real", 0), other=str(pictures(tmp_path / "other", 1)))
    study(store, base=base).run(lambda _: None, max_cells=1, slots=2)
    rows = list(csv.DictReader(io.StringIO(store.read_bytes("studies/small/sets.csv").decode())))
    found = {(row["setting"], row["metric"]): (row["seeds"], row["mean"]) for row in rows}
    assert found["2", "top-5"] == ("2", "0.950000") and found["2", "other"] == ("2", "0.600000")
    assert "| 2 | 0.950 ± 0.000 | 0.600 ± 0.000 |" in store.read_bytes("studies/small/table.md").decode()


def test_without_its_main_test_set_nothing_is_made(stages: Stages, store: Store, tmp_path: Path) -> None:
    other = str(pictures(tmp_path / "other", 0))
    base = scored_on("imagenet_val", imagenet_val=str(tmp_path / "gone"), other=other)
    plan = plan_study(SETTINGS, base)
    with pytest.raises(InputError, match=r"/gone' is no folder"):
        Study(plan, plan, store, "small").run(lambda _: None, slots=2)
    assert stages.made == [] and stages.trained == []
    said: list[str] = []
    Study(plan, plan, store, "small").look_at_data(said.append, must_be_there=False)
    assert "nothing can be scored" in said[0] and "/gone'" in said[0]


def test_results_are_those_of_the_test_set_that_is_there_now(stages: Stages, store: Store, tmp_path: Path) -> None:
    base = scored_on(pictures(tmp_path / "real", 0))
    study(store, base=base).run(lambda _: None, slots=2)
    assert study(store, base=base).missing() == []
    resized = base.model_copy(update={"evaluate": base.evaluate.model_copy(update={"resize": 40})})
    assert len(study(store, base=resized).missing()) == 10
    pictures(tmp_path / "real", 1)
    assert len(study(store, base=base).missing()) == 10


def test_a_test_set_that_changes_under_a_study_is_not_taken_for_the_old_one(
    stages: Stages, store: Store, tmp_path: Path
) -> None:
    found = study(store, base=scored_on(pictures(tmp_path / "real", 0)))
    pictures(tmp_path / "real", 1)
    with pytest.raises(WorkError, match="test sets changed while the study ran"):
        found.run(lambda _: None, slots=2)
    assert found.results == {}
