from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.core.promotion import check_same_settings, full_config, lasting
from pipeline.core.search_space import lay_over
from pipeline.core.sweep_config import SweepConfig, load_sweep, sweep_names

SPACE: dict[str, Any] = {"train.real_share": {"choice": [0.25, 0.5]}}
POINT = {"train.real_share": 0.25}


def mixed(**more: Any) -> SweepConfig:
    base = ["train.data=mixed", "train.epochs=9", "train.num_workers=1", "generate.num_actors=1", "images_per_class=50"]
    return SweepConfig.model_validate({"base": base, "space": SPACE, **more})


def test_what_was_tried_is_promoted_and_the_budget_of_a_trial_is_not() -> None:
    preset = load_config("fashion")
    config = full_config(mixed(), preset, POINT)
    assert (config.train.data, config.train.real_share) == ("mixed", 0.25)
    left = {**preset.train.model_dump(), "data": "mixed", "real_share": 0.25}
    assert config.train.model_dump() == left
    assert config.model_copy(update={"train": preset.train}) == preset


def test_the_words_of_full_lie_over_those_of_base() -> None:
    base = ["train.weight_decay=0.01", "train.momentum=0.8"]
    config = full_config(mixed(base=base, full=["train.momentum=0.7"]), load_config("fashion"), {})
    assert (config.train.weight_decay, config.train.momentum) == (0.01, 0.7)


def test_what_decides_nothing_is_the_command_lines_and_not_that_of_base() -> None:
    given = load_config("fashion", overrides=["evaluate.test_set=/data/mine", "tracking.enabled=true", "data_dir=/a"])
    base = ["train.epochs=9", "tracking.enabled=false", "evaluate.test_set=/data/small", "data_dir=/b"]
    config = full_config(mixed(base=base), given, {})
    assert config == given


def test_a_training_recipe_in_base_lasts_but_for_its_epochs() -> None:
    kept = lasting(["train=@paper_rn50", "train.epochs=9", "recipe.guidance_scale=1"])
    assert kept["recipe"] == {"guidance_scale": 1} and "momentum" in kept["train"]
    assert not {"epochs", "warmup_epochs", "num_workers"} & set(kept["train"])


@pytest.mark.parametrize("name", sweep_names())
def test_the_base_of_every_sweep_that_ships_is_a_budget_and_no_more(name: str) -> None:
    preset, sweep = load_config(name), load_sweep(name)
    assert full_config(sweep, preset, {}) == lay_over(preset, sweep.full, {})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipe.guidance_scale=2"], "recipe.guidance_scale was 1 and is 2"),
        (["train.head=linear"], "train.head was cosine and is linear"),
        (["classes=imagenet100"], "classes was fashion_mnist and is imagenet100"),
        (["images_per_class=7", "train.seed=3"], "images_per_class was 200 and is 7, train.seed was 0 and is 3"),
    ],
)
def test_another_run_than_the_searched_one_is_named(words: list[str], says: str) -> None:
    with pytest.raises(InputError, match=rf"^sweep s searched over another run than this one: {says}; give the"):
        check_same_settings(load_config("fashion"), load_config("fashion", overrides=words), "s")


@pytest.mark.parametrize(
    "word",
    [
        "train.num_workers=1",
        "train.epochs=40",
        "generate.num_actors=7",
        "evaluate.device=cpu",
        "tracking.enabled=false",
        "data_dir=/x",
    ],
)
def test_where_and_how_long_may_differ(word: str) -> None:
    check_same_settings(load_config("fashion"), load_config("fashion", overrides=[word]), "s")
