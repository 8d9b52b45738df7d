"""Extra images on disk: the ledger, what a training needs of it, and the manifest."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError
from pipeline.core.extra_set import (
    extra_manifest,
    manifest_shards,
    needed_extras,
    publish_extra_manifest,
    published_extras,
    without_gaps,
)
from pipeline.core.extra_shards import extra_shard
from pipeline.core.image_set import published_shards, shard_path
from pipeline.core.recipe import Recipe
from tests.image_sets import small_config, write_extras, write_image_set

COUNTS = [0, 5, 12, *[0] * 7]
SHARDS = [extra_shard(1, 0), extra_shard(2, 0), extra_shard(2, 1), extra_shard(2, 2)]


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Recipe]:
    """A set with three shards of extra images of class 2 and one of class 1."""
    config = small_config(images_per_class=2, shard_size=20, engine_batch=5)
    store = Store.open(str(tmp_path / "runs"))
    recipe = write_image_set(config, store)
    write_extras(config, store, COUNTS)
    return store, recipe


def test_the_two_ledgers_are_apart(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    store.write_bytes(f"{recipe.images_dir}/extra/class-000001-copy.parquet", b"")
    assert published_shards(store, recipe.images_dir) == {0}
    assert published_extras(store, recipe.images_dir) == set(SHARDS)
    assert not published_extras(store, "images/none")


def test_a_training_needs_whole_shards_of_its_own_counts_only(made: tuple[Store, Recipe]) -> None:
    assert needed_extras(*made, [0, 0, 6, *[0] * 7]) == SHARDS[1:3]
    assert needed_extras(*made, []) == []


def test_missing_shards_are_named_by_their_classes(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    store.delete(shard_path(recipe.images_dir, SHARDS[2]))
    with pytest.raises(InputError, match="lacks 2 of the 5 shards .*2 classes.*jobs.generate --per-class") as error:
        needed_extras(store, recipe, [0, 5, 12, 1, *[0] * 6])
    assert all(recipe.classes.wnids[label] in str(error.value) for label in (2, 3))


def test_the_manifest_counts_what_lies_there(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    manifest = extra_manifest(store, recipe.images_dir)
    assert manifest is not None
    assert manifest["per_class"] == {recipe.classes.wnids[1]: 5, recipe.classes.wnids[2]: 12}
    assert (manifest["rows"], manifest["ok"], manifest["shards"]) == (20, 20, 4)
    assert manifest_shards(manifest, recipe) == SHARDS


def test_a_smaller_request_leaves_the_manifest_as_it_is(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    before = extra_manifest(store, recipe.images_dir)
    assert publish_extra_manifest(store, recipe, 5, [0, 1, *[0] * 8]) == before


def test_gaps_below_the_last_shard_of_a_class_are_seen() -> None:
    assert without_gaps([extra_shard(4, 2), extra_shard(1, 0)]) == {
        extra_shard(1, 0), extra_shard(4, 0), extra_shard(4, 1), extra_shard(4, 2),
    }  # fmt: skip
