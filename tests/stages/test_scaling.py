"""Fitting a study whose results are there; tests/tune/test_scaling.py asks for one."""

from __future__ import annotations

import json

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, WorkError
from pipeline.core.scaling_law import ScalingLaw
from pipeline.core.scaling_report import REAL
from pipeline.core.study_config import StudyConfig
from pipeline.core.study_plan import plan_study
from pipeline.stages.scaling import fit_study
from pipeline.stages.study import Study
from tests.image_sets import small_config, write_image_set

SIZES = (8, 16, 32, 64)
SETTINGS = StudyConfig(
    seeds=[0, 1],
    axes={"c": {f"{size}": ["recipe.template=c", f"images_per_class={size}"] for size in SIZES}},
)
LAWS = {"synthetic": ScalingLaw(0.2, 0.2, 0.5, 100), "real": ScalingLaw(0.1, 0.2, 0.5, 100)}


def finished(store: Store, left_out: int = 0, settings: StudyConfig = SETTINGS) -> Study:
    """The study with the results that its laws would give, the last ones left out."""
    plan = plan_study(settings, small_config())
    study = Study(plan, plan, store, "s")
    study.look_at_data(lambda _: None)
    lines = []
    for cell, seed in plan.trials():
        top1 = LAWS[cell.config.train.data].accuracy(10 * cell.config.images_per_class) + 0.001 * seed
        report = f"reports/{study.reports[cell, seed]}/report.html"
        lines.append(json.dumps({"report": report, "top1": top1, "train_images_per_s": 1.0}))
    text = "\n".join(lines[: len(lines) - left_out])
    store.write_bytes("studies/s/results.jsonl", text.encode())
    done = Study(plan, plan, store, "s")
    done.look_at_data(lambda _: None)
    return done


def test_every_axis_and_the_twins_become_a_curve(tmp_path) -> None:
    store = Store.open(str(tmp_path))
    text, facts = fit_study(finished(store))
    assert [curve["name"] for curve in facts["curves"]] == ["c", REAL]
    assert facts["curves"][0]["exponent"] == pytest.approx(0.5, abs=0.05)
    assert set(facts["curves"][0]["measured"]) == {"80", "160", "320", "640"}  # of all ten classes
    assert store.read_json("studies/s/scaling.json") == json.loads(json.dumps(facts))
    assert text in store.read_bytes("studies/s/scaling.md").decode() and store.exists("studies/s/scaling.png")


def test_twins_of_too_few_sizes_are_no_curve_and_the_text_says_so(tmp_path) -> None:
    few = SETTINGS.model_copy(update={"twin_sizes": [8]})
    text, facts = fit_study(finished(Store.open(str(tmp_path)), settings=few))
    assert [curve["name"] for curve in facts["curves"]] == ["c"]
    assert "Real images: 1 of the 3 sizes that a curve takes" in text


def test_recipes_of_equal_accuracies_are_told_apart_by_nothing(tmp_path) -> None:
    axes = {
        recipe: {f"{size}": [f"recipe.template={recipe}", f"images_per_class={size}"] for size in SIZES}
        for recipe in ("c", "c, h_c")
    }
    equal = SETTINGS.model_copy(update={"axes": axes, "twins": False})
    _, facts = fit_study(finished(Store.open(str(tmp_path)), settings=equal))
    assert all(0.3 < line["sure"] < 0.7 for line in facts["advice"]), facts["advice"]


def test_a_missing_training_is_named_and_nothing_is_written(tmp_path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(WorkError, match="64 per class, seed 1 is not trained yet"):
        fit_study(finished(store, left_out=1))
    assert not store.exists("studies/s/scaling.json")


def test_the_speed_of_the_set_s_own_shards_gives_the_price(tmp_path) -> None:
    store = Store.open(str(tmp_path))
    study = finished(store)
    largest = study.plan.axes["c"][-1][1].config
    write_image_set(largest.model_copy(update={"images_per_class": 3}), store)
    _, facts = fit_study(study, "h100x8")
    assert facts["curves"][0]["next_usd"] > 0


def test_a_price_that_nobody_knows_costs_no_law(tmp_path) -> None:
    text, facts = fit_study(finished(Store.open(str(tmp_path))), "h100x8")
    assert "No price of" in text and "nobody knows how fast" in text and "--images-per-s" not in text
    assert [curve["next_usd"] for curve in facts["curves"]] == [None] * len(facts["curves"])


def test_a_cluster_that_is_not_known_is_an_input_error(tmp_path) -> None:
    with pytest.raises(InputError, match="'h100x9' is unknown"):
        fit_study(finished(Store.open(str(tmp_path))), "h100x9")
