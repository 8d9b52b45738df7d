"""A sweep that makes its images, in MLflow, and the promotion of its best trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from mlflow.tracking import MlflowClient

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.core.promotion import full_config
from pipeline.core.sweep_config import IDENTITY, RESULT, SweepConfig
from pipeline.stages.promote import choose_trial, config_yaml, promotion_markdown, promotion_seeds
from tests.conftest import Cli
from tests.image_sets import small_config
from tests.tiny_sets import training_options

SPACE = {
    "search": "random",
    "num_trials": 3,
    "validation": {"source": "synthetic", "images_per_class": 2},
    "base": ["train.epochs=2", "generate.num_actors=1"],
    "full": ["train.epochs=3"],
    "space": {"images_per_class": {"choice": [4, 8]}, "train.learning_rate": {"loguniform": [0.1, 0.8]}},
}
BEST = {"trial": "b", "state": "finished", "accuracy": 0.8, "epochs": 2, "point": {"train.learning_rate": 0.3}}
ENDED = {"best": BEST, "trials": [BEST, {**BEST, "trial": "a"}, {**BEST, "trial": "c", "state": "failed"}]}


def test_the_best_trial_or_a_named_finished_one_is_chosen() -> None:
    assert choose_trial(ENDED, None)["trial"] == "b" and choose_trial(ENDED, "a")["trial"] == "a"
    with pytest.raises(InputError, match="'c' is no finished trial"):
        choose_trial(ENDED, "c")
    with pytest.raises(InputError, match="no trial of this sweep gave a result"):
        choose_trial({**ENDED, "best": None}, None)


def test_a_promotion_does_not_train_with_the_seed_that_was_searched_with() -> None:
    assert promotion_seeds(0, 3) == [1, 2, 3] and promotion_seeds(1, 3) == [0, 2, 3] and promotion_seeds(9, 2) == [0, 1]


def test_the_config_is_the_preset_at_full_budget_with_the_trials_settings(tmp_path: Path) -> None:
    sweep = SweepConfig.model_validate(SPACE)
    config = full_config(sweep, small_config(), BEST["point"])
    assert (config.train.epochs, config.train.learning_rate) == (3, 0.3)
    path = tmp_path / "best.yaml"
    path.write_text(config_yaml(config, "a\nline"))
    assert load_config(None, [str(path)]) == config


def test_the_report_says_how_far_off_the_estimate_was() -> None:
    found = {"trial": "b", "estimate": 0.8, "trial_epochs": 2, "epochs": 3, "seeds": [0, 1]}
    found |= {"validation": {"mean": 0.75, "std": 0.01}, "test": {"mean": 0.7, "std": None}}
    text = promotion_markdown({**found, "estimate_off": 0.05, "test_off": 0.1})
    assert "off by +0.0500" in text and "+0.1000" in text and "| 0.7500 | 0.0100 | 3 |" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--sweep", "../x"], "no sweep's name"),
        (["--sweep", "none"], "has not ended; run `python -m tune.sweep"),
        (["--alias", "x", "--set", "tracking.enabled=false"], "--alias needs MLflow's registry"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, words: list[str], says: str) -> None:
    code, _, err = run("tune.promote", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_other_words_than_the_sweep_had_are_refused_and_named(run, tmp_path: Path, dry: list[str]) -> None:
    store = Store.open(str(tmp_path / "runs"))
    searched = load_config("fashion", overrides=["recipe.guidance_scale=2"])
    about = {"sweep": SPACE, "config": searched.model_dump(mode="json", exclude={"tracking"})}
    store.write_json(f"sweeps/small/{IDENTITY}", about)
    store.write_json(f"sweeps/small/{RESULT}", ENDED)
    code, _, err = run("tune.promote", "--preset", "fashion", "--root", store.root, "--sweep", "small", *dry)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and "recipe.guidance_scale was 2 and is 1" in line and "words that tune.sweep had" in line
    assert not store.exists("sweeps/small/best.yaml")


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_sweep_makes_its_images_once_and_its_best_trial_is_promoted(
    cli: Cli, tiny_model: Path, noise_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
    words = [*training_options(tmp_path / "runs", tiny_model), "--set", f"evaluate.test_set={noise_folder}", "--json"]
    facts = cli("tune.sweep", *words, "--space", str(tmp_path / "small.yaml"), timeout_s=1000).check_ok().json
    assert facts["finished"] == 3 and facts["images_asked"] == facts["images_made"] + facts["images_reused"]
    store = Store.open(str(tmp_path / "runs"))
    assert len(list((tmp_path / "runs" / "images").iterdir())) == 2  # one recipe and the validation images
    found = (
        cli("tune.promote", *words, "--sweep", "small", "--seeds", "2", "--alias", "best", timeout_s=1000)
        .check_ok()
        .json
    )
    assert found["epochs"] == 3 and len(found["models"]) == 2 and 0 <= found["test"]["mean"] <= 1
    assert found["estimate_off"] == pytest.approx(found["estimate"] - found["validation"]["mean"])
    trained = cli("jobs.train", "--config", str(tmp_path / "runs" / found["config"]), "--root", store.root, "--json")
    assert trained.check_ok().json["existing"]  # the very model of the first seed
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    version = client.get_model_version_by_alias("synthclones-fashion_mnist", "best")
    assert version.tags["synthclones.model_id"] == found["best_model"].removeprefix("models/")
    experiments = {one.name: one.experiment_id for one in client.search_experiments()}
    runs = client.search_runs([experiments["fashion/sweeps/small"], experiments["fashion"]])
    (parent,) = [run for run in runs if run.data.tags["synthclones.job"] == "sweep"]
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["synthclones.job"] for run in nested} == {"train"} and len(nested) == 3
    assert {run.info.status for run in runs} == {"FINISHED"}
    points = client.get_metric_history(nested[0].info.run_id, "val_accuracy")
    assert [point.step for point in points] == [1, 2]
    for one in nested:  # what parallel coordinates are drawn from
        assert {"recipe.guidance_scale", "train.learning_rate", "images_per_class"} <= set(one.data.params)
        assert one.data.metrics["cost_device_s"] > 0 and one.data.tags["synthclones.trial"]
    prompts = [run for run in runs if run.data.tags["synthclones.job"] == "build_prompts"]
    made = [run for run in runs if run.data.tags["synthclones.job"] == "generate"]
    assert {run.data.tags["synthclones.parent.build_prompts"] for run in made} == {p.info.run_id for p in prompts}
    assert [file.path for file in client.list_artifacts(made[0].info.run_id)] == ["gallery.html"]
    assert json.loads(parent.data.params["space.images_per_class"])["choice"] == [4, 8]
