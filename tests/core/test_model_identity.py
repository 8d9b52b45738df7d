"""What makes two models the same one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.model_identity import WHERE_AND_HOW, model_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.train_config import FilterConfig, MultiCropConfig, TrainConfig


def make_recipe(identity: str = "a") -> Recipe:
    return replace(resolve_recipe(RunConfig()), hash=identity * 64)


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
        ("augmentation", "dino_multicrop"),
        ("sync_batch_norm", True),
        ("ema_decay", 0.99),
        ("filters", FilterConfig(min_pixel_std=3)),
        ("extra_images", (("n02774152", 50),)),
        ("logit_adjustment", 1.0),
    ],
)
def test_what_moves_the_result_changes_the_identity(field: str, value: Any) -> None:
    config = RunConfig()
    changed = config.model_copy(update={"train": config.train.model_copy(update={field: value})})
    assert model_identity(changed, make_recipe())[1] != model_identity(config, make_recipe())[1]


def test_where_and_how_does_not_change_the_identity() -> None:
    config = RunConfig()
    how = {"num_workers": 4, "torch_threads": 3, "ingest": "stream", "device": "cuda", "max_failures": 0}
    how |= {"min_workers": 1, "max_batch_per_worker": 8}
    changed = config.model_copy(update={"train": config.train.model_copy(update=how)})
    assert model_identity(changed, make_recipe()) == model_identity(config, make_recipe())
    assert set(TrainConfig.model_fields) >= WHERE_AND_HOW


def test_synthetic_model_depends_on_the_recipe_and_the_real_twin_does_not() -> None:
    config = RunConfig()
    real = config.model_copy(update={"train": config.train.model_copy(update={"data": "real"})})
    assert model_identity(config, make_recipe("a"))[1] != model_identity(config, make_recipe("b"))[1]
    assert model_identity(real, make_recipe("a"))[1] == model_identity(real, make_recipe("b"))[1]
    assert model_identity(real, make_recipe("a"))[1] != model_identity(config, make_recipe("a"))[1]


def test_filters_are_of_every_model_but_a_real_twin_which_keeps_the_id_it_has_without() -> None:
    def identity(data: str, **filters: Any) -> str:
        train = TrainConfig.model_validate({"data": data, "filters": filters})
        return model_identity(RunConfig(train=train), make_recipe())[1]

    assert identity("real", min_pixel_std=5) == identity("real", min_clip_score=0.2, clip_audit="ab" * 8)
    assert identity("real", min_pixel_std=5) == identity("real")
    assert all(identity(data, min_pixel_std=5) != identity(data) for data in ("synthetic", "mixed"))


def test_a_mixed_model_depends_on_both_and_on_the_share_which_others_do_not_know() -> None:
    def identity(recipe: str, **train: Any) -> str:
        config = RunConfig(train=TrainConfig.model_validate(train))
        return model_identity(config, make_recipe(recipe))[1]

    mixed = identity("a", data="mixed")
    others = [
        identity("b", data="mixed"),
        identity("a", data="mixed", real_share=0.25),
        identity("a", data="mixed", separate_batch_norm=True),
        identity("a"),
        identity("a", data="real"),
    ]
    assert len({mixed, *others}) == 6
    assert identity("a", real_share=0.25, separate_batch_norm=True) == identity("a")


def test_number_of_images_and_class_table_are_in_the_identity() -> None:
    config = RunConfig()
    recipe = make_recipe()
    fewer_classes = replace(recipe, classes=replace(recipe.classes, rows=recipe.classes.rows[:9]))
    assert model_identity(config, fewer_classes)[1] != model_identity(config, recipe)[1]
    more = config.model_copy(update={"images_per_class": 201})
    assert model_identity(more, recipe)[1] != model_identity(config, recipe)[1]


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        ("fashion", [], "62c42f37ec0ba971fd33b547293ccd30cd9e9bfa32e10206c80a7e4e043b4d40"),
        ("imagenet100_sd", [], "ccafc065bfb183f8e8702b49b2ada02fc0993545f9314a1c3daf7615201627a5"),
        (
            "fashion",
            ["train.data=real", "train.head=linear"],
            "e4477bb8cb88a035b4de0cc547f7493b9d3641a6f3fb482c8a17a73f1cd9efc5",
        ),
    ],
)
def test_ids_that_models_were_made_under_stay(preset: str, overrides: list[str], expected: str) -> None:
    config = load_config(preset, overrides=overrides)
    assert model_identity(config, replace(resolve_recipe(config), hash="a" * 64))[1] == expected


def test_crops_that_are_not_used_are_not_in_the_identity() -> None:
    crops = {"multi_crop": MultiCropConfig(num_local=2)}
    plain, many = RunConfig(), RunConfig(train=TrainConfig(augmentation="dino_multicrop"))
    for config, same in ((plain, True), (many, False)):
        changed = config.model_copy(update={"train": config.train.model_copy(update=crops)})
        assert (model_identity(changed, make_recipe()) == model_identity(config, make_recipe())) is same


def test_a_filter_that_came_later_is_in_the_identity_only_when_it_is_given() -> None:
    def filters(**values: Any) -> Any:
        train = TrainConfig.model_validate({"filters": {"min_pixel_std": 5, **values}})
        return model_identity(RunConfig(train=train), make_recipe())[0]["train"]["filters"]

    assert set(filters()) == {"min_pixel_std", "max_nsfw_score", "drop_duplicates"}
    assert filters(min_clip_score=0.2, clip_audit="ab" * 8)["clip_audit"] == "ab" * 8
