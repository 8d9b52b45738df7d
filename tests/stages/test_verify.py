"""What a repair does to a manifest, without Ray: a bare loop stands for the pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import published_shards, read_identity, shard_path
from pipeline.core.recipe import Recipe
from pipeline.stages.generate import publish_manifest
from pipeline.stages.verify import make_again
from tests.image_sets import small_config, write_image_set
from tests.tiny_models import build_tiny_model

SIZE = 20


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """Of a set of 4 images per class in two shards."""
    config = small_config(images_per_class=4, shard_size=SIZE, engine_batch=SIZE)
    model = {"id": str(build_tiny_model(tmp_path / "model"))}
    return RunConfig.model_validate({**config.model_dump(), "recipe": {"model": model}})


@pytest.fixture
def extended(config: RunConfig, tmp_root: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Recipe]:
    """That set, finished, and the third shard of an extension to 6 per class, whose driver was killed just then."""
    store, larger = Store.open(tmp_root), config.model_copy(update={"images_per_class": 6})
    recipe = write_image_set(larger, store)

    def make_shards(_config: Any, _recipe: Any, _store: Any, _parts: Any, shards: Sequence[int], **_: Any) -> int:
        write_image_set(larger, store)
        return len(shards) * SIZE

    monkeypatch.setattr("pipeline.stages.generate.make_shards", make_shards)
    return store, recipe


def repair(config: RunConfig, store: Store, recipe: Recipe, manifest: dict[str, Any] | None) -> None:
    """Shard 1 is torn and made again."""
    store.write_bytes(shard_path(recipe.images_dir, 1), b"torn")
    make_again(config, store, [1], 3, read_identity(store, recipe.images_dir), manifest)
    assert published_shards(store, recipe.images_dir) == {0, 1, 2}


def test_a_repair_leaves_an_interrupted_extension_one(config: RunConfig, extended: tuple[Store, Recipe]) -> None:
    store, recipe = extended
    before = publish_manifest(config, recipe, store, [0, 1])
    repair(config, store, recipe, before)
    after = store.read_json(f"{recipe.images_dir}/{MANIFEST}")
    names = ("images_per_class", "shards", "rows", "set_sha256")
    assert [after[name] for name in names] == [4, 2, 2 * SIZE, before["set_sha256"]]


def test_a_repair_gives_no_manifest_to_a_set_that_has_none(config: RunConfig, extended: tuple[Store, Recipe]) -> None:
    store, recipe = extended
    repair(config, store, recipe, None)
    assert not store.exists(f"{recipe.images_dir}/{MANIFEST}")
