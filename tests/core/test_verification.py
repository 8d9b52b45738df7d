"""What is wrong with a shard, found by spoiling sound ones in every way that a disk or a bug could."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.artifact import Store
from pipeline.core.extra_shards import extra_shard
from pipeline.core.image_set import shard_path
from pipeline.core.recipe import Recipe
from pipeline.core.schema import FAILED
from pipeline.core.shard_maker import shard_bytes, summarize
from pipeline.core.verification import check_shard
from tests.image_sets import small_config, write_extras, write_image_set
from tests.spoilt_rows import SPOILT, Rows

SIZE = 30
EXTRA = extra_shard(2, 1)
"""The second one of its class."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Recipe]:
    store = Store.open(str(tmp_path_factory.mktemp("sound")))
    config = small_config(images_per_class=6, shard_size=SIZE, engine_batch=SIZE)
    recipe = write_image_set(config, store)
    write_extras(config, store, [0, 0, 2 * SIZE, *[0] * 7])
    return store, recipe


def rows_of(sound: tuple[Store, Recipe], shard: int = 1) -> Rows:
    store, recipe = sound
    rows: Rows = pq.read_table(pa.BufferReader(store.read_bytes(shard_path(recipe.images_dir, shard)))).to_pylist()
    return rows


def faults(sound: tuple[Store, Recipe], data: bytes, folder: Path, shard: int = 1) -> list[str]:
    store = Store.open(str(folder))
    store.write_bytes(shard_path(sound[1].images_dir, shard), data)
    return check_shard(store, sound[1], shard, SIZE)


def test_a_sound_shard_has_no_fault(sound: tuple[Store, Recipe]) -> None:
    store, recipe = sound
    assert [check_shard(store, recipe, shard, SIZE) for shard in (0, 1, EXTRA - 1, EXTRA)] == [[]] * 4


def test_a_missing_shard_is_said_to_be_missing(sound: tuple[Store, Recipe]) -> None:
    assert check_shard(*sound, 7, SIZE) == ["it is not there"]


def test_an_honest_failed_row_is_no_fault(sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    rows = rows_of(sound)
    nothing = dict.fromkeys(("image", "width", "height", "sha256", "pixel_std"))
    rows[3] = {**rows[3], **nothing, "status": FAILED, "reason": "x"}
    assert faults(sound, shard_bytes(rows, summarize(1, SIZE, rows, 0.0)), tmp_path) == []


@pytest.mark.parametrize("shard", [1, EXTRA], ids=["uniform", "extra"])
@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_rows_are_named(name: str, shard: int, sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    spoil, says = SPOILT[name]
    rows = spoil(rows_of(sound, shard))
    found = faults(sound, shard_bytes(rows, summarize(shard, SIZE, rows, 0.0)), tmp_path, shard)
    assert any(says in fault for fault in found), found


def test_a_footer_that_its_rows_do_not_bear_out(sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    rows = rows_of(sound)
    data = shard_bytes(rows, summarize(2, SIZE, rows[1:], 0.0))
    found = faults(sound, data, tmp_path)
    assert [fault.split()[3] for fault in found] == ["shard", "rows", "counts", "rows_sha256"]


@pytest.mark.parametrize("cut", [1, 10, 2000, -40])
def test_a_torn_file_cannot_be_read(cut: int, sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    rows = rows_of(sound)
    (fault,) = faults(sound, shard_bytes(rows, summarize(1, SIZE, rows, 0.0))[:cut], tmp_path)
    assert fault.startswith("it cannot be read")


def test_text_that_is_no_utf8_cannot_be_read(sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    rows = rows_of(sound)
    rows[0]["prompt"] = "a prompt of one bad bit"
    data = bytes(shard_bytes(rows, summarize(1, SIZE, rows, 0.0)))
    (fault,) = faults(sound, data.replace(b"a prompt of", b"\xe1 prompt of"), tmp_path)
    assert fault.startswith("it cannot be read: 'utf-8' codec")


def test_a_parquet_file_of_something_else(sound: tuple[Store, Recipe], tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    (fault,) = faults(sound, bytes(sink.getvalue()), tmp_path)
    assert fault.startswith("it cannot be read")
