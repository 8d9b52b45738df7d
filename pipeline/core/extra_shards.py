"""Numbers of the shards that hold extra images: more of some classes than the uniform part of a set has of all.

An extra shard holds images of one class, as many as an engine call makes. So growing a class only adds files, and the
pixels of an extra image do not depend on how many others were asked for (docs/architecture.md, "Extra images").
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.identity import FIRST_EXTRA, image_id, image_row, row_image_id, split_image_id

FIRST_EXTRA_SHARD = 1 << 40
"""Uniform shards are numbered from 0 and never come so far."""
BLOCK_BITS = 28


def extra_shard(class_index: int, block: int) -> int:
    """The number of a class's `block`-th extra shard (both >= 0)."""
    assert 0 <= class_index < 1 << 31 and 0 <= block < 1 << BLOCK_BITS, (class_index, block)
    return FIRST_EXTRA_SHARD + (class_index << BLOCK_BITS) + block


def is_extra(shard: int) -> bool:
    """Whether a shard holds extra images."""
    return shard >= FIRST_EXTRA_SHARD


def split_extra_shard(shard: int) -> tuple[int, int]:
    """(class_index, block) of an extra shard: inverse of `extra_shard`."""
    assert is_extra(shard), shard
    return divmod(shard - FIRST_EXTRA_SHARD, 1 << BLOCK_BITS)


def extra_shards(counts: Sequence[int], batch_size: int) -> list[int]:
    """The shards that hold the first `counts[c]` extra images of every class c, by class; the last may hold more."""
    return [
        extra_shard(class_index, block)
        for class_index, count in enumerate(counts)
        for block in range(-(-count // batch_size))
    ]


def rows_in(shard: int, shard_size: int, batch_size: int) -> int:
    """Rows of a shard of a set with these shapes."""
    return batch_size if is_extra(shard) else shard_size


def first_row(shard: int, rows: int) -> int:
    """The number of a shard's first row, of `rows`, in the uniform part or among the extra images of its class."""
    return split_extra_shard(shard)[1] * rows if is_extra(shard) else shard * rows


def shard_ids(shard: int, rows: int, permutation: Sequence[int]) -> list[int]:
    """The ids of a shard's images, in order.

    Args:
        shard: its number.
        rows: how many it has.
        permutation: class order of the recipe.
    """
    first = first_row(shard, rows)
    if is_extra(shard):
        class_index = split_extra_shard(shard)[0]
        return [image_id(class_index, FIRST_EXTRA + number) for number in range(first, first + rows)]
    return [row_image_id(row, permutation) for row in range(first, first + rows)]


def locate_image(identifier: int, permutation: Sequence[int], shard_size: int, batch_size: int) -> tuple[int, int]:
    """(shard, row inside it) of an image of a set with these shapes."""
    class_index, index = split_image_id(identifier)
    if index >= FIRST_EXTRA:
        block, row = divmod(index - FIRST_EXTRA, batch_size)
        return extra_shard(class_index, block), row
    return divmod(image_row(identifier, permutation), shard_size)
