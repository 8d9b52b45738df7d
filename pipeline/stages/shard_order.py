"""In which order a driver has its shards made: several that are at work on one set begin at unlike places."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.lease import LEAVE_PATIENCE_S, LeaseTiming, lease

WHOLE, EXTRA = "all", "extra"
"""Parts of a set: its uniform shards, its extra ones."""
_LOOKS = 3
"""At who holds the lease; the first ones remove what a dead driver of this machine left."""
logger = logging.getLogger(__name__)


@contextmanager
def shard_order(
    store: Store, images_dir: str, shards: Sequence[int], part: str = WHOLE, timing: LeaseTiming | None = None
) -> Iterator[list[int]]:
    """The shards ascending for the first driver at work on a part of a set, shuffled for every other one.

    Workers leave a shard alone that is there when they come to it. Of drivers that go through one list in one order,
    each begins a shard while another one is still at it, from the first shard to the last. A shuffled one meets the
    others seldom, whatever their number, order and speed, but near the end.

    Args:
        store: the storage root. Where it fails, the order is ascending: this saves work and decides nothing else.
        images_dir: of the set.
        shards: that are to be made.
        part: of the set, a word for a file name; drivers with unlike ones do not ask for each other.
        timing: of the lease.
    """
    directory = f"{images_dir}/first-{part}"
    looks = iter(range(_LOOKS))
    order = sorted(shards)
    with ExitStack() as stack:
        try:
            is_first = stack.enter_context(
                lease(store, directory, until=lambda: next(looks, None) is None, timing=timing)
            )
        except WorkError as error:
            logger.warning("other commands on this set may make the same shards as this one: %s", error)
            is_first = True
        if not is_first:
            stack.close()
            stack.enter_context(_in_line(store, directory, timing))
            random.shuffle(order)
            print(
                "generate: another command is at work on this set; this one takes its shards in random order",
                flush=True,
            )
        yield order


@contextmanager
def _in_line(store: Store, directory: str, timing: LeaseTiming | None) -> Iterator[None]:
    """Wait for the lease meanwhile, as whoever waits removes what a dead driver of another machine left."""
    ended = threading.Event()

    def wait() -> None:
        with suppress(WorkError), lease(store, directory, until=ended.is_set, timing=timing):
            ended.wait()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LEAVE_PATIENCE_S)
