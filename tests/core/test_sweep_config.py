from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.core.config_loading import PRESETS, load_config, validate
from pipeline.core.errors import InputError
from pipeline.core.search_space import GRID, as_point, check_space, describe_point, grid, lay_over, suggest
from pipeline.core.sweep_config import SweepConfig, load_sweep, sweep_names
from tests.image_sets import small_config

CONDITIONAL = {
    "train.augmentation": {"choice": ["pytorch", "dino_multicrop"]},
    "train.min_crop_scale": {"choice": [0.3, 0.6], "when": {"train.augmentation": "pytorch"}},
}


def sweep(space: dict[str, Any], **more: Any) -> SweepConfig:
    return validate(SweepConfig, {"space": space, **more})


@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_that_ships_is_valid_over_its_preset(name: str) -> None:
    assert (PRESETS / "runs" / f"{name}.yaml").exists()
    check_space(load_sweep(name), load_config(name))


@pytest.mark.parametrize(
    ("space", "more", "says"),
    [
        ({"generate.batch_size": {"choice": [1]}}, {}, "this"),
        ({"train.num_workers": {"choice": [1]}}, {}, "this"),
        ({"train": {"choice": [{"num_workers": 7}]}}, {}, r"train\.learning_rate, not all of it"),
        ({"recipe": {"choice": [{"width": 16}]}}, {}, r"recipe\.guidance_scale, not all of it"),
        ({"train.epochs": {"choices": [1]}}, {}, r"'space\.train\.epochs\.choices'; did you mean 'choice'"),
        ({"train.epochs": {}}, {}, "exactly one of"),
        ({"train.epochs": {"choice": [1], "uniform": [1, 2]}}, {}, "exactly one of"),
        ({"train.learning_rate": {"uniform": [2, 1]}}, {}, "below"),
        ({"train.learning_rate": {"loguniform": [0, 1]}}, {}, "above 0"),
        ({"train.learning_rate": {"loguniform": [1, 2], "step": 1}}, {}, "step"),
        ({"train.learning_rate": {"uniform": [1, 2]}}, {"search": "grid"}, "grid needs choice"),
        ({"train.epochs": {"choice": [1], "when": {"train.head": "linear"}}}, {}, "no setting above"),
        (
            {"train.head": {"choice": ["linear"]}, "train.epochs": {"choice": [1], "when": {"train.head": []}}},
            {},
            "'train.head' has no value",
        ),
        ({"train.epochs": {"choice": [1]}}, {"objectives": ["cost"]}, "objectives"),
    ],
)
def test_a_wrong_space_is_one_line(space: dict[str, Any], more: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        sweep(space, **more)


@pytest.mark.parametrize(
    ("key", "uniform", "step", "says"),
    [
        ("images_per_class", [50, 200], 100, r"200 would never.*\[50, 150\] or \[50, 250\]"),
        ("train.momentum", [0.3, 1.0], 0.2, r"1 would never.*\[0\.3, 0\.9\] or \[0\.3, 1\.1\]"),
        ("images_per_class", [50, 60], 100, r"60 would never.*\[50, 150\], or step: 10"),
    ],
)
def test_a_step_that_misses_the_higher_bound_is_refused_in_a_new_sweep_and_read_in_an_older_one(
    key: str, uniform: list[float], step: float, says: str, tmp_path: Path
) -> None:
    about = {"space": {key: {"uniform": uniform, "step": step}}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(about))
    with pytest.raises(InputError, match=rf"^sweep '{file}': space\.{key}: step .*{says}"):
        load_sweep(str(file))
    assert sweep(**about).space[key].step == step  # as tune.promote reads it


def test_the_highest_value_of_a_stepped_range_is_drawn_though_its_step_is_no_binary_number() -> None:
    import optuna

    found = sweep({"train.momentum": {"uniform": [0.3, 0.9], "step": 0.1}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [as_point(found, suggest(found, study.ask()))["train.momentum"] for _ in range(60)]
    assert sorted({round(value, 9) for value in drawn}) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("train.epoch", 1, "did you mean 'epochs'"), ("train.epochs", 0, "greater than"), ("recipe.width", 7, "width")],
)
def test_values_are_tried_on_the_preset(key: str, value: Any, says: str) -> None:
    with pytest.raises(InputError, match=rf"space\.{key}: .*{says}"):
        check_space(sweep({key: {"choice": [value]}}), small_config())


@pytest.mark.parametrize(
    ("space", "base", "says"),
    [
        ({"images_per_class": {"uniform": [4, 12]}}, [], "images_per_class"),
        ({"recipe.template": {"choice": ["c", "{{ nothing"]}}, [], r"recipe\.template"),
        ({"recipe.model": {"choice": [{"id": "no/such", "revision": "main"}]}}, [], "revision"),
        ({"recipe.backgrounds": {"choice": ["moon"]}}, ["recipe.template=c, h_c inside b"], "moon"),
        ({"train.real_share": {"uniform": [0.25, 0.75]}}, ["train.data=mixed"], "real_share"),
    ],
)
def test_what_every_trial_would_reject_is_found_before_any(space: dict[str, Any], base: list[str], says: str) -> None:
    with pytest.raises(InputError, match=rf"space\.\S+: .*{says}"):
        check_space(sweep(space, base=base), small_config())


def test_a_setting_is_tried_beside_those_that_depend_on_it() -> None:
    styled = "c in {{ style }}"  # without a style it is no template
    space = {
        "recipe.template": {"choice": ["c", styled]},
        "recipe.styles": {"choice": [["oil"]], "when": {"recipe.template": styled}},
    }
    check_space(sweep(space), small_config())
    with pytest.raises(InputError, match="must list some"):
        check_space(sweep({"recipe.template": space["recipe.template"]}), small_config())
    never = {**space, "recipe.styles": {"choice": [["oil"]], "when": {"recipe.template": "d"}}}
    with pytest.raises(InputError, match=r"space\.recipe\.styles: when: recipe\.template is never d"):
        check_space(sweep(never), small_config())


def test_a_seed_that_no_search_takes_is_refused() -> None:
    with pytest.raises(InputError, match=r"^seed.*less than 4294967296"):
        sweep({"train.epochs": {"choice": [1]}}, seed=2**32)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'fashion'"):
        load_sweep("fashoin")


def test_the_grid_has_each_combination_once_and_leaves_out_what_does_not_apply() -> None:
    points = grid(sweep({**CONDITIONAL, "images_per_class": {"choice": [4, 8]}}, search="grid"))
    assert len(points) == 6
    assert points[0] == {"train.augmentation": "pytorch", "train.min_crop_scale": 0.3, "images_per_class": 4}
    assert points[-1] == {"train.augmentation": "dino_multicrop", "images_per_class": 8}
    assert as_point(sweep(CONDITIONAL), {GRID: '{"a": [1]}'}) == {"a": [1]}


def test_a_grid_beyond_the_limit_is_an_input_error() -> None:
    numbers = list(range(1, 102))
    with pytest.raises(InputError, match="more than 10,000"):
        grid(sweep({"train.epochs": {"choice": numbers}, "images_per_class": {"choice": numbers}}))


def test_optuna_draws_points_that_are_valid_runs_and_keep_to_conditions() -> None:
    import optuna

    found = sweep(
        {
            **CONDITIONAL,
            "recipe.template": {"choice": ["c", [{"template": "c", "weight": 2}, {"template": "c, d_c", "weight": 1}]]},
            "images_per_class": {"uniform": [4, 12], "step": 4},
            "train.learning_rate": {"loguniform": [0.1, 1]},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [as_point(found, suggest(found, study.ask())) for _ in range(40)]
    for point in points:
        assert ("train.min_crop_scale" in point) == (point["train.augmentation"] == "pytorch")
        assert point["images_per_class"] in (4, 8, 12) and 0.1 <= point["train.learning_rate"] <= 1
        config = lay_over(small_config(), ("train.epochs=5",), point)
        assert config.train.epochs == 5 and config.images_per_class == point["images_per_class"]
    assert {type(point["recipe.template"]) for point in points} == {str, list}
    assert describe_point({"a": 0.123456, "b": "c"}) == "a=0.1235 b=c"
