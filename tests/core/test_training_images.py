"""Rows of an image set and real images as arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError, WorkError
from pipeline.core.extra_shards import extra_shards
from pipeline.core.identity import FIRST_EXTRA, image_id, row_image_id, split_image_id
from pipeline.core.image_filters import select_images
from pipeline.core.image_set import shard_path
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import FilterConfig, TrainConfig
from pipeline.core.training_images import (
    Arrays,
    check_classes,
    check_memory,
    decode,
    real_images,
    stored_side,
    synthetic_images,
)
from tests.image_sets import pictures_by_class, small_config, write_extras, write_image_set


def shards_of(recipe: Recipe, count: int) -> list[str]:
    return [shard_path(recipe.images_dir, shard) for shard in range(count)]


def read(store: Store, recipe: Recipe, config: RunConfig, count: int) -> Arrays:
    return synthetic_images(store, shards_of(recipe, count), config)


def test_exact_prefix_in_row_order_with_the_right_pixels(tmp_root: str) -> None:
    store, config = Store.open(tmp_root), small_config(images_per_class=4, shard_size=30)
    recipe = write_image_set(config, store)  # 40 rows wanted, 60 made
    images, labels = read(store, recipe, config, 2)
    ids = [split_image_id(row_image_id(row, recipe.permutation)) for row in range(40)]
    assert labels.tolist() == [class_index for class_index, _ in ids]
    pictures = pictures_by_class()
    expected = np.stack([as_rgb32(pictures[c][i : i + 1])[0] for c, i in ids])
    assert np.array_equal(images, expected)


def test_extra_images_come_after_the_prefix_and_no_more_than_asked(tmp_root: str) -> None:
    store, config = Store.open(tmp_root), small_config(images_per_class=2, shard_size=20, engine_batch=5)
    recipe = write_image_set(config, store)
    counts = np.array([0, 4, 7, *[0] * 7])
    write_extras(config, store, counts.tolist())
    shards = [shard_path(recipe.images_dir, shard) for shard in (0, *extra_shards(counts.tolist(), 5))]
    images, labels = synthetic_images(store, shards, config, extra=counts)
    assert labels[20:].tolist() == [1] * 4 + [2] * 7
    assert np.array_equal(images[20:24], as_rgb32(pictures_by_class()[1][3000:3004]))
    plain = synthetic_images(store, shards, config)[1]
    assert plain.tolist() == labels[:20].tolist()  # without a word of them they are outside every prefix
    left_out = np.array([image_id(2, FIRST_EXTRA + 6)])
    assert len(synthetic_images(store, shards, config, left_out, counts)[1]) == 30


@pytest.mark.parametrize("status", ["failed", "nsfw", "blank"])
def test_rows_that_are_not_ok_are_left_out(tmp_root: str, status: str) -> None:
    def spoil(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "status": status, "image": None, "reason": "x"} if number in (3, 11) else row

    store, config = Store.open(tmp_root), small_config(images_per_class=2, shard_size=20)
    recipe = write_image_set(config, store, spoil)
    images, labels = read(store, recipe, config, 1)
    expected = [recipe.permutation[row % 10] for row in range(20) if row not in (3, 11)]
    assert labels.tolist() == expected
    assert len(images) == 18
    assert select_images(store, shards_of(recipe, 1), 2, FilterConfig()).labels.tolist() == expected


def test_usable_labels_are_those_of_the_decoded_images(tmp_root: str) -> None:
    store, config = Store.open(tmp_root), small_config(images_per_class=4, shard_size=30)
    recipe = write_image_set(config, store)
    labels = select_images(store, shards_of(recipe, 2), 4, FilterConfig()).labels
    assert labels.tolist() == read(store, recipe, config, 2)[1].tolist()


@pytest.mark.parametrize("image", [{"bytes": b"no picture", "path": None}, {"bytes": None, "path": None}, None])
def test_an_ok_row_that_cannot_be_decoded_names_shard_image_and_remedy(tmp_root: str, image: Any) -> None:
    def spoil(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "image": image} if number == 13 else row

    store, config = Store.open(tmp_root), small_config(images_per_class=2, shard_size=20)
    recipe = write_image_set(config, store, spoil)
    with pytest.raises(WorkError, match=r"000\.parquet is damaged .image \d+ cannot be decoded: .*--repair") as error:
        read(store, recipe, config, 1)
    assert str(row_image_id(13, recipe.permutation)) in str(error.value)


def test_a_damaged_shard_is_a_work_error(tmp_root: str) -> None:
    store, config = Store.open(tmp_root), small_config(images_per_class=2, shard_size=20)
    recipe = write_image_set(config, store)
    path = shard_path(recipe.images_dir, 0)
    store.write_bytes(path, store.read_bytes(path)[:200])
    with pytest.raises(WorkError, match=r"shard-000000\.parquet is damaged"):
        read(store, recipe, config, 1)


def encoded(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 77).save(file, "PNG")
    return file.getvalue()


def test_small_images_are_kept_whole_and_large_ones_shrunk_by_the_shorter_side() -> None:
    assert stored_side(TrainConfig()) == 256
    assert stored_side(TrainConfig(stored_size=512)) == 512
    assert decode(encoded(256, 256), 256).shape == (256, 256, 3)
    assert decode(encoded(32, 32), 256).shape == (32, 32, 3)
    assert decode(encoded(1024, 512), 256).shape == (256, 512, 3)
    assert (decode(encoded(512, 512), 256) == 77).all()


def test_real_images_are_a_balanced_prefix() -> None:
    few = real_images(small_config(images_per_class=3, data="real"))
    more = real_images(small_config(images_per_class=5, data="real"))
    assert np.bincount(few[1]).tolist() == [3] * 10
    assert np.array_equal(more[0][:30], few[0])
    images, labels = load_fashion_mnist(None, "train")
    first_bag = as_rgb32(images[labels == 8][:1])[0]
    assert np.array_equal(few[0][few[1] == 8][0], first_bag)


def test_real_images_of_other_classes_are_an_input_error() -> None:
    config = small_config(data="real").model_copy(update={"classes": "imagenet100"})
    with pytest.raises(InputError, match=r"fashion_mnist only.*imagenet100"):
        real_images(config)


def test_an_empty_class_is_an_input_error_that_names_it() -> None:
    check_classes(np.array([0, 1, 2]), ["a", "b", "c"])
    with pytest.raises(InputError, match=r"1 of 3 classes have no usable image \('b'\)"):
        check_classes(np.array([0, 2, 2]), ["a", "b", "c"])


@pytest.mark.parametrize(("data", "remedy"), [("synthetic", "train.ingest=stream"), ("real", "lower images_per_class")])
def test_more_than_the_memory_limit_is_an_input_error(data: str, remedy: str) -> None:
    config = small_config(data=data, max_memory_gib=0.001)
    check_memory([(300, 32, 32)], config)
    with pytest.raises(InputError, match=remedy):
        check_memory([(400, 32, 32)], config)


def test_memory_counts_images_after_shrinking() -> None:
    config = small_config(max_memory_gib=0.001)  # input 32: kept at 36
    check_memory([(270, 512, 512)], config)
    with pytest.raises(InputError, match=r"max_memory_gib"):
        check_memory([(280, 512, 512)], config)
