from __future__ import annotations

import json

import pytest

from pipeline.core.mlflow_view import chart_settings, how_to_open, sweep_view, view_path


def test_an_axis_is_what_every_trial_has_and_not_all_have_alike() -> None:
    searched = ["train.learning_rate", "train.epochs", "train.min_crop_scale", "train.multi_crop", "recipe.template"]
    runs = [
        {"train.learning_rate": 0.1, "train.epochs": 9, "train.min_crop_scale": 0.3, "recipe.template": "c"},
        {"train.learning_rate": 0.4, "train.epochs": 9, "train.multi_crop.num_local": 2, "recipe.template": ["c", "d"]},
    ]
    assert chart_settings(searched, runs) == ["train.learning_rate", "recipe.template"]
    assert chart_settings(searched, []) == []


def test_a_view_shows_the_trials_of_one_sweep_and_every_chart_lies_in_a_section() -> None:
    view = json.loads(sweep_view("Sweep x", "0a1b", ["train.learning_rate"], 1.5))
    assert (view["name"], view["createdAt"]) == ("Sweep x", 1500)
    state = json.loads(view["state"])
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = '0a1b'"
    parallel, *others = state["compareRunCharts"]
    assert parallel["selectedParams"] == ["train.learning_rate"] and parallel["selectedMetrics"][-1] == "val_accuracy"
    assert [chart["type"] for chart in others] == ["LINE", "LINE", "SCATTER"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections
    assert len({chart["uuid"] for chart in state["compareRunCharts"]}) == 4


def test_a_view_of_many_settings_fits_into_a_tag() -> None:
    from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH

    settings = [f"train.a_rather_long_setting_{number}" for number in range(60)]  # more axes than can be drawn
    assert len(sweep_view("x" * 100, "0" * 32, settings, 1e9)) < MAX_EXPERIMENT_TAG_VAL_LENGTH


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://host:5000/", "http://host:5000/#/experiments/7/runs?viewStateShareKey=ab&"),
        (
            "sqlite:////a/mlflow.db",
            "mlflow ui --backend-store-uri 'sqlite:////a/mlflow.db', then http://127.0.0.1:5000/#/",
        ),
    ],
)
def test_how_a_user_gets_there(uri: str, says: str) -> None:
    assert how_to_open(uri, view_path("7", "ab")).startswith(says)


def test_no_password_is_shown() -> None:
    assert "hush" not in how_to_open("https://me:hush@host", "#/") + how_to_open("postgresql://me:hush@db/m", "#/")
