from __future__ import annotations

import csv
import io

from pipeline.core.config_loading import load_config
from pipeline.core.study_config import StudyConfig
from pipeline.core.study_plan import StudyPlan, plan_study
from pipeline.core.study_sets import CORRUPTED, TOP5, sets_csv, sets_markdown


def two_settings() -> StudyPlan:
    figure = {"top1": 0.5, "sketch": 0.418, "certainty": "second-hand"}
    settings = {
        "seeds": [0, 1],
        "twins": False,
        "axes": {"a": {"x": ["train.epochs=3"], "y": []}},
        "paper": {"a": {"x": figure}},
    }
    return plan_study(StudyConfig.model_validate(settings), load_config("fashion"))


def test_every_column_that_is_known_stands_beside_the_paper_s_figure() -> None:
    plan = two_settings()
    x = plan.cells[0]
    scores = {
        (x, 0): {CORRUPTED: 0.3, "imagenet_sketch": 0.40, TOP5: 0.9},
        (x, 1): {CORRUPTED: 0.5, "imagenet_sketch": 0.42, TOP5: 0.9},
    }
    text = sets_markdown(plan, scores)
    assert "| a | top-5 | imagenet_sketch | corrupted |" in text
    assert "| x | 0.900 ± 0.000 | 0.410 ± 0.014 [0.418 (second-hand)] | 0.400 ± 0.141 |" in text
    assert "| y |  |  |  |" in text
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(sets_csv(plan, scores)))}
    assert (rows["imagenet_sketch"]["mean"], rows["imagenet_sketch"]["paper"]) == ("0.410000", "0.418000")
    assert (rows[TOP5]["seeds"], rows[TOP5]["paper"]) == ("2", "")


def test_a_set_that_is_not_there_still_shows_what_the_paper_says() -> None:
    plan = two_settings()
    text = sets_markdown(plan, {(plan.cells[0], 0): {TOP5: 0.9}})
    assert "| x | 0.900 | [0.418 (second-hand)] |" in text


def test_before_the_first_result_there_is_no_table() -> None:
    assert sets_markdown(two_settings(), {}) == ""
