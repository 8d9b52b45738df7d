"""In which order a driver has its shards made: several that are at work on one set begin at unlike places."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.core.artifact import Store
from pipeline.core.lease import lease

_LOOKS = 3
"""At who holds the lease; the first ones remove what a dead driver of this machine left."""


@contextmanager
def shard_order(store: Store, images_dir: str, shards: Sequence[int]) -> Iterator[list[int]]:
    """The shards ascending for the first driver at work on a set, shuffled for every other one.

    Workers leave a shard alone that is there when they come to it. Of drivers that go through one list in one order,
    each begins a shard while another one is still at it, from the first shard to the last. A shuffled one meets the
    others seldom, whatever their number, order and speed, but near the end.

    Args:
        store: the storage root.
        images_dir: of the set.
        shards: that are to be made.

    Raises:
        WorkError: the storage cannot be read or written.
    """
    looks = iter(range(_LOOKS))
    with lease(store, f"{images_dir}/first", until=lambda: next(looks, None) is None) as is_first:
        order = sorted(shards)
        if not is_first:
            random.shuffle(order)
            print(
                "generate: another command is at work on this set; this one takes its shards in random order",
                flush=True,
            )
        yield order
