"""Numbers of extra shards: never those of uniform ones, and each image in one place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.extra_shards import (
    extra_shard,
    extra_shards,
    first_row,
    is_extra,
    locate_image,
    rows_in,
    shard_ids,
    split_extra_shard,
)
from pipeline.core.identity import FIRST_EXTRA, image_id, row_image_id

PERMUTATION = [2, 0, 1]


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**28 - 1))
def test_a_number_is_one_class_and_block_and_fits_an_int64(class_index: int, block: int) -> None:
    shard = extra_shard(class_index, block)
    assert split_extra_shard(shard) == (class_index, block)
    assert is_extra(shard) and shard < 2**63


def test_the_uniform_shards_of_the_largest_set_are_no_extra_ones() -> None:
    assert not is_extra(100_000 * 1_000_000)  # classes, images of each, a shard for every image


def test_counts_are_whole_shards_by_class() -> None:
    assert extra_shards([0, 5, 11], 5) == [extra_shard(1, 0), extra_shard(2, 0), extra_shard(2, 1), extra_shard(2, 2)]


def test_an_extra_shard_holds_its_class_from_where_the_block_before_ends() -> None:
    shard = extra_shard(1, 2)
    assert (rows_in(shard, 30, 5), rows_in(7, 30, 5), first_row(shard, 5), first_row(7, 30)) == (5, 30, 10, 210)
    assert shard_ids(shard, 5, PERMUTATION) == [image_id(1, FIRST_EXTRA + number) for number in range(10, 15)]


def test_a_uniform_shard_holds_its_rows() -> None:
    assert shard_ids(1, 4, PERMUTATION) == [row_image_id(row, PERMUTATION) for row in range(4, 8)]


@pytest.mark.parametrize("shard", [0, 3, extra_shard(0, 0), extra_shard(2, 9)])
def test_every_image_of_a_shard_is_located_in_it(shard: int) -> None:
    rows = rows_in(shard, 6, 4)
    found = [locate_image(identifier, PERMUTATION, 6, 4) for identifier in shard_ids(shard, rows, PERMUTATION)]
    assert found == [(shard, row) for row in range(rows)]
