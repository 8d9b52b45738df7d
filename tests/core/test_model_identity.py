"""What makes two models the same one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.model_identity import WHERE_AND_HOW, model_identity
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import TrainConfig


def make_recipe(identity: str = "a") -> Recipe:
    return Recipe({"x": identity}, identity * 64, load_class_table("fashion_mnist"), list(range(10)), "{{ c }}", [])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 7),
        ("seed", 3),
        ("batch_size", 128),
        ("learning_rate", 0.2),
        ("min_crop_scale", 0.5),
        ("head", "linear"),
        ("temperature", 0.2),
        ("mixed_precision", "bfloat16"),
        ("input_size", 64),
    ],
)
def test_what_moves_the_result_changes_the_identity(field: str, value: Any) -> None:
    config = RunConfig()
    changed = config.model_copy(update={"train": config.train.model_copy(update={field: value})})
    assert model_identity(changed, make_recipe())[1] != model_identity(config, make_recipe())[1]


def test_where_and_how_does_not_change_the_identity() -> None:
    config = RunConfig()
    changed = config.model_copy(
        update={
            "train": config.train.model_copy(
                update={"num_workers": 4, "torch_threads": 3, "ingest": "stream", "device": "cuda", "max_failures": 0}
            )
        }
    )
    assert model_identity(changed, make_recipe()) == model_identity(config, make_recipe())
    assert set(TrainConfig.model_fields) >= WHERE_AND_HOW


def test_synthetic_model_depends_on_the_recipe_and_the_real_twin_does_not() -> None:
    config = RunConfig()
    real = config.model_copy(update={"train": config.train.model_copy(update={"data": "real"})})
    assert model_identity(config, make_recipe("a"))[1] != model_identity(config, make_recipe("b"))[1]
    assert model_identity(real, make_recipe("a"))[1] == model_identity(real, make_recipe("b"))[1]
    assert model_identity(real, make_recipe("a"))[1] != model_identity(config, make_recipe("a"))[1]


def test_number_of_images_and_class_table_are_in_the_identity() -> None:
    config = RunConfig()
    recipe = make_recipe()
    fewer_classes = replace(recipe, classes=replace(recipe.classes, rows=recipe.classes.rows[:9]))
    assert model_identity(config, fewer_classes)[1] != model_identity(config, recipe)[1]
    more = config.model_copy(update={"images_per_class": 201})
    assert model_identity(more, recipe)[1] != model_identity(config, recipe)[1]
