"""Filters of a training: what they leave out, what they count, and that a prefix stays a prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.artifact import Store
from pipeline.core.audit import ClipRows
from pipeline.core.clip_scores import FILE, clip_scores_bytes
from pipeline.core.errors import InputError, WorkError
from pipeline.core.extra_shards import extra_shard
from pipeline.core.identity import FIRST_EXTRA
from pipeline.core.image_filters import Selection, is_usable, select_images
from pipeline.core.image_set import shard_path
from pipeline.core.train_config import FilterConfig
from pipeline.core.training_images import synthetic_images
from tests.image_sets import small_config, write_extras, write_image_set

CONFIG = small_config(images_per_class=4, shard_size=20)
SCORES = {0: 0.5, 1: -0.01, 2: -0.2, 3: -0.3}
"""By the index of the image in its class."""


def spoil(_number: int, row: dict[str, Any]) -> dict[str, Any]:
    index = row["image_id"] & 0xFFFFFFFF
    flat = row["class_index"] == 3 and index == 2
    return {
        **row,
        "nsfw_score": SCORES[index],
        "pixel_std": 1.0 if flat else 60.0,
        "phash": "0" * 16 if row["class_index"] == 5 and index in (1, 3) else f"{row['image_id']:016x}",
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str]]:
    store = Store.open(str(tmp_path_factory.mktemp("filters") / "runs"))
    recipe = write_image_set(CONFIG, store, spoil)
    return store, [shard_path(recipe.images_dir, number) for number in range(2)]


def select(shards: tuple[Store, list[str]], images_per_class: int = 4, **filters: Any) -> Selection:
    return select_images(*shards, images_per_class, FilterConfig(**filters))


def test_without_filters_all_stay(shards: tuple[Store, list[str]]) -> None:
    found = select(shards)
    assert (len(found.labels), len(found.left_out), found.counts) == (40, 0, {})


@pytest.mark.parametrize(
    ("filters", "left_out", "counts"),
    [
        ({"min_pixel_std": 5}, [3 << 32 | 2], {"min_pixel_std": {3: 1}}),
        ({"drop_duplicates": True}, [5 << 32 | 3], {"drop_duplicates": {5: 1}}),
        ({"max_nsfw_score": 0.0}, [c << 32 for c in range(10)], {"max_nsfw_score": dict.fromkeys(range(10), 1)}),
        (
            {"max_nsfw_score": -0.25, "min_pixel_std": 5},
            [c << 32 | i for c in range(10) for i in range(3)],
            {"min_pixel_std": {3: 1}, "max_nsfw_score": {c: 2 if c == 3 else 3 for c in range(10)}},
        ),
    ],
)
def test_filters_leave_out_and_count(
    shards: tuple[Store, list[str]], filters: dict[str, Any], left_out: list[int], counts: dict[str, dict[int, int]]
) -> None:
    found = select(shards, **filters)
    assert found.left_out.tolist() == left_out
    assert found.counts == counts
    assert len(found.labels) == 40 - len(left_out)


def test_a_longer_prefix_leaves_out_the_same_images_and_none_is_replaced(shards: tuple[Store, list[str]]) -> None:
    short = select(shards, 2, max_nsfw_score=0.0)
    assert np.bincount(short.labels).tolist() == [1] * 10
    assert set(short.left_out) <= set(select(shards, 4, max_nsfw_score=0.0).left_out)


def test_decoded_images_are_those_that_stay(shards: tuple[Store, list[str]]) -> None:
    # The duplicate at index 3 stays: the one before it is left out for its score.
    found = select(shards, max_nsfw_score=-0.1, drop_duplicates=True)
    images, labels = synthetic_images(*shards, CONFIG, found.left_out)
    assert labels.tolist() == found.labels.tolist() and len(images) == 20


AUDIT = "ab" * 8


def with_scores(shards: tuple[Store, list[str]], each: int) -> None:
    """The table of an audit whose CLIP looked at the first `each` images of a class and liked only classes above 6."""
    labels, indices = (axis.ravel() for axis in np.meshgrid(np.arange(10), np.arange(each), indexing="ij"))
    nothing = np.zeros(len(labels), np.int64)
    scores = (labels / 10).astype(np.float32)
    rows = ClipRows(labels, indices, nothing, scores, scores, nothing, np.zeros((10, 2)))
    shards[0].write_bytes(f"audits/{AUDIT}/{FILE}", clip_scores_bytes(rows))


def test_images_that_clip_scored_low_are_left_out(shards: tuple[Store, list[str]]) -> None:
    with_scores(shards, 4)
    found = select(shards, min_clip_score=0.65, clip_audit=AUDIT)
    assert np.bincount(found.labels).tolist() == [0] * 7 + [4] * 3
    assert found.counts == {"min_clip_score": dict.fromkeys(range(7), 4)}


def test_an_audit_that_saw_too_few_images_or_is_not_there_is_an_input_error(shards: tuple[Store, list[str]]) -> None:
    with_scores(shards, 3)
    with pytest.raises(InputError, match="clip_images_per_class at least images_per_class"):
        select(shards, min_clip_score=0.65, clip_audit=AUDIT)
    with pytest.raises(InputError, match="has no scores of CLIP"):
        select(shards, min_clip_score=0.65, clip_audit="cd" * 8)
    with pytest.raises(ValueError, match="given together"):
        FilterConfig(min_clip_score=0.2)


def test_a_score_that_nobody_gave_is_an_input_error(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "runs"))
    recipe = write_image_set(CONFIG, store)
    with pytest.raises(InputError, match="have no nsfw_score"):
        select((store, [shard_path(recipe.images_dir, 0)]), max_nsfw_score=0.0)


def test_a_hash_that_is_none_names_its_shard(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    recipe = write_image_set(CONFIG, store, lambda _number, row: {**row, "nsfw_score": 0.0, "phash": "no"})
    path = shard_path(recipe.images_dir, 0)
    with pytest.raises(WorkError, match=rf"{path} is damaged .phash 'no' of image"):
        select_images(store, [path], 4, FilterConfig(drop_duplicates=True))


def test_extra_images_are_filtered_like_all_others(tmp_path: Path) -> None:
    config = small_config(images_per_class=1, shard_size=10, engine_batch=5)
    store, counts = Store.open(str(tmp_path)), np.array([3, *[0] * 9])
    recipe = write_image_set(config, store, lambda _, row: {**row, "phash": "0" * 16})
    write_extras(config, store, counts.tolist(), lambda number, row: {**row, "phash": f"{number:016x}"})
    paths = [shard_path(recipe.images_dir, shard) for shard in (0, extra_shard(0, 0))]
    found = select_images(store, paths, 1, FilterConfig(drop_duplicates=True), counts)
    assert found.labels.tolist()[10:] == [0, 0]  # the first one repeats the class's uniform image
    assert found.left_out.tolist() == [FIRST_EXTRA] and found.counts == {"drop_duplicates": {0: 1}}


@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_ids_that_are_left_out_are_found_without_sorting_them_again(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(count)
    ids = rng.integers(0, 400, 200)
    left_out = np.sort(rng.choice(400, count, replace=False))
    expected = ~np.isin(ids, left_out)
    monkeypatch.delattr(np, "isin")  # it takes seconds for each shard of a set of which millions are left out
    table = pa.table({"image_id": ids, "status": ["ok"] * 200})
    assert is_usable(table, 400, left_out).tolist() == expected.tolist()
