"""Images made again and compared in this process; tests/jobs/test_regenerate.py does it through Ray."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, WorkError
from pipeline.core.extra_shards import extra_shard
from pipeline.core.identity import FIRST_EXTRA, image_id
from pipeline.core.image_set import shard_path
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.regeneration import MAX_PSNR_DB, compare, locate, psnr_db
from pipeline.core.shard_maker import ShardMaker, shard_bytes, summarize
from pipeline.stages.prompts import ensure_prompt_table
from tests.image_sets import small_config, write_image_set
from tests.spoilt_rows import SPOILT, png
from tests.tiny_sets import tiny_config

SIZE = 30


def published_maker(model: Path, root: Path, changes: Mapping[str, object] | None = None) -> ShardMaker:
    """A maker whose first shard is published."""
    config, store = tiny_config(model, changes), Store.open(str(root))
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    made = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir)
    made.make(0)
    return made


@pytest.fixture
def maker(tiny_model: Path, tmp_path: Path) -> ShardMaker:
    return published_maker(tiny_model, tmp_path / "runs")


def again(maker: ShardMaker, *numbers: int) -> list[Any]:
    return compare(maker, maker._store, resolve_recipe(maker._config), 0, numbers)


def test_images_of_the_same_environment_are_equal(maker: ShardMaker) -> None:
    found = again(maker, 0, 7)
    assert [(each.is_equal, each.has_equal_pixels, each.psnr_db, each.differs) for each in found] == [
        (True, True, MAX_PSNR_DB, {})
    ] * 2


def test_an_extra_image_is_located_and_made_again(tiny_model: Path, tmp_path: Path) -> None:
    config, store = tiny_config(tiny_model), Store.open(str(tmp_path))
    recipe = resolve_recipe(config)
    maker = ShardMaker(config, store, recipe.prompts_dir, [], recipe.images_dir, recipe=recipe)
    maker.make(extra_shard(3, 1))
    ((shard, rows),) = locate([image_id(3, FIRST_EXTRA + 7)], recipe, store, 10, 5).items()
    assert (shard, rows) == (extra_shard(3, 1), [2])
    (found,) = compare(maker, store, recipe, shard, rows)
    assert found.is_equal and found.image_id == image_id(3, FIRST_EXTRA + 7)
    with pytest.raises(InputError, match="would lie in extra/class-000003-000000.parquet, which is not in"):
        locate([image_id(3, FIRST_EXTRA)], recipe, store, 10, 5)


def test_another_encoder_gives_the_same_pixels_in_other_bytes(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smaller(pixels: np.ndarray, recipe: object) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=9)
        return file.getvalue()

    monkeypatch.setattr("pipeline.core.shard_maker.encode_image", smaller)
    (found,) = again(maker, 3)
    assert (found.is_equal, found.has_equal_pixels, found.is_unexplained) == (False, True, False)


def test_an_image_that_failed_both_times_is_not_equal_and_no_fault(
    maker: ShardMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maker.engine, "generate", lambda prompts, seeds, scales: 1 / 0)
    maker.make(0)
    (found,) = again(maker, 3)
    assert (found.stored_status, found.status, found.is_equal, found.psnr_db) == ("failed", "failed", False, None)
    assert not found.is_unexplained


def test_a_failure_of_what_was_there_is_unexplained(maker: ShardMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker.engine, "generate", lambda prompts, seeds, scales: 1 / 0)
    (found,) = again(maker, 3)
    assert found.is_unexplained and (found.stored_status, found.status) == ("ok", "failed")


def test_a_picture_of_another_size_has_no_ratio(maker: ShardMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.core.shard_maker.encode_image", lambda pixels, recipe: png(8))
    (found,) = again(maker, 3)
    assert found.psnr_db is None and found.is_unexplained


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Recipe]:
    store = Store.open(str(tmp_path_factory.mktemp("sound")))
    return store, write_image_set(small_config(images_per_class=6, shard_size=SIZE), store)


@pytest.mark.parametrize("name", [*SPOILT, "torn"])
def test_a_damaged_shard_is_one_line(name: str, sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    path = shard_path(sound[1].images_dir, 1)
    data = sound[0].read_bytes(path)
    if name == "torn":
        data = data[:2000] + b"\0" * 500 + data[2500:]  # the footer is whole
    else:
        rows = SPOILT[name][0](pq.read_table(pa.BufferReader(data)).to_pylist())
        data = bytes(shard_bytes(rows, summarize(1, SIZE, rows, 0.0)))
    store = Store.open(str(tmp_path))
    store.write_bytes(path, data)
    maker: Any = SimpleNamespace(rows_in=lambda _: SIZE, environment={})
    with pytest.raises(WorkError, match=r"shard-000001.parquet is damaged .*jobs.verify --repair"):
        compare(maker, store, sound[1], 1, [29])


def test_equal_pictures_get_the_highest_ratio() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert psnr_db(picture, picture.copy()) == MAX_PSNR_DB


@pytest.mark.parametrize(("difference", "expected"), [(1, 48.13), (255, 0.0), (16, 24.05)])
def test_a_constant_difference_has_its_known_ratio(difference: int, expected: float) -> None:
    dark = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(dark, np.full_like(dark, difference)) == pytest.approx(expected, abs=0.01)
