from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.classes import class_table_bytes, load_class_table
from pipeline.core.config_loading import load_config, with_overrides
from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash
from pipeline.core.recipe import Recipe, resolve_recipe
from tests.tiny_models import build_tiny_checker, build_tiny_model

HUB = ["recipe.model.id=org/name", f"recipe.model.revision={'a' * 40}"]


def recipe(*words: str) -> Recipe:
    return resolve_recipe(load_config("fashion", overrides=[*HUB, *words]))


def test_the_hash_is_that_of_the_identity_and_names_the_directories() -> None:
    found = recipe()
    assert found.hash == content_hash(found.identity) and found.id == found.hash[:16]
    assert (found.prompts_dir, found.images_dir) == (f"prompts/{found.id}", f"images/{found.id}")
    assert sorted(found.permutation) == list(range(10)) and len(found.classes) == 10


@pytest.mark.parametrize(
    "word",
    [
        "recipe.template=c", "recipe.scheduler=DDIMScheduler", "recipe.num_inference_steps=16", "recipe.width=40",
        "recipe.guidance_scale=2.5", "recipe.dtype=bfloat16", "recipe.height=40",
        "recipe.safety_checker=false", "recipe.image_format=webp", "recipe.seed_namespace=1", "classes=imagenet100",
        f"recipe.model.revision={'b' * 40}", "recipe.model.variant=fp16", "recipe.model.id=org/other",
    ],
)  # fmt: skip
def test_whatever_decides_pixels_changes_the_hash(word: str) -> None:
    assert recipe(word).hash != recipe().hash


def test_a_negative_prompt_decides_pixels() -> None:
    assert (
        recipe("recipe.guidance_scale=2", "recipe.negative_prompt=blur").hash != recipe("recipe.guidance_scale=2").hash
    )


@pytest.mark.parametrize(
    "word",
    [
        "images_per_class=9", "generate.num_actors=7", "generate.batch_size=3", "generate.shard_size=7",
        "train.epochs=3", "data_dir=/x", "tracking.experiment=x", "evaluate.batch_size=3",
        "recipe.image_quality=50",  # PNG has none
        "recipe.backgrounds=/not/there.parquet",  # the template has no background
        "recipe.template={{ c }}, {{ h_c }}",  # the same template, written out
    ],
)  # fmt: skip
def test_what_decides_no_pixel_does_not(word: str) -> None:
    assert recipe(word).hash == recipe().hash


def test_quality_counts_where_there_is_one() -> None:
    jpeg = "recipe.image_format=jpeg"
    assert recipe(jpeg, "recipe.image_quality=50").hash != recipe(jpeg, "recipe.image_quality=60").hash


def test_backgrounds_are_in_it_when_the_template_has_one() -> None:
    inside = recipe("recipe.template=c, h_c inside b")
    assert len(inside.backgrounds) == 365 and inside.identity["backgrounds"] == inside.backgrounds
    assert recipe().backgrounds == []


def test_a_table_counts_by_its_content_and_not_by_its_place(tmp_path: Path) -> None:
    table = load_class_table("fashion_mnist")
    (tmp_path / "copy.parquet").write_bytes(class_table_bytes(table))
    assert recipe(f"classes={tmp_path}/copy.parquet").hash == recipe().hash


def test_a_local_model_counts_by_its_content_and_not_by_its_place(tiny_model: Path, tmp_path: Path) -> None:
    config = load_config("fashion", overrides=[f"recipe.model.id={tiny_model}"])
    copy = with_overrides(config, [f"recipe.model.id={build_tiny_model(tmp_path / 'again')}"])
    assert resolve_recipe(copy).hash == resolve_recipe(config).hash
    weights = next((tmp_path / "again" / "vae").glob("*.safetensors"))
    moved = tmp_path / "changed"
    (tmp_path / "again").rename(moved)
    target = moved / weights.relative_to(tmp_path / "again")
    target.write_bytes(target.read_bytes()[:-1] + b"\x01")
    assert resolve_recipe(with_overrides(config, [f"recipe.model.id={moved}"])).hash != resolve_recipe(config).hash


def test_the_hash_does_not_change_from_release_to_release() -> None:
    """Image sets on disk are found by it: when this fails, raise SCHEMA_VERSION and say so in the change log."""
    assert recipe("recipe.guidance_scale=2").id == "9df16089658ce0ad"


def test_a_safety_model_is_in_it_only_when_there_is_one(tmp_path: Path) -> None:
    plain = recipe("recipe.guidance_scale=2")
    assert "safety_model" not in plain.identity and recipe("recipe.safety_model=null").hash == recipe().hash
    checker = build_tiny_checker(tmp_path / "checker")
    checked = recipe("recipe.guidance_scale=2", f"recipe.safety_model.id={checker}")
    assert checked.hash != plain.hash and checked.identity["safety_model"].keys() == {"sha256", "variant"}
    (tmp_path / "other").mkdir()
    other = build_tiny_checker(tmp_path / "other", threshold=0.5)
    assert recipe("recipe.guidance_scale=2", f"recipe.safety_model.id={other}").hash != checked.hash


def test_the_shipped_fashion_recipe_is_named_as_ever() -> None:
    assert resolve_recipe(load_config("fashion")).id == "6abf775aef6de430"


def test_a_recipe_that_cannot_be_is_an_input_error() -> None:
    with pytest.raises(InputError, match="recipe.template"):
        recipe("recipe.template={{ nothing }}")
