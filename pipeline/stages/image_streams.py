"""Training images through Ray Data: read and decoded anew in every epoch, with bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import SharedError
from pipeline.core.extra_counts import NO_EXTRAS
from pipeline.core.image_filters import NOTHING
from pipeline.core.real_folder import RealFolder
from pipeline.core.training_images import (
    COLUMNS,
    decode_rows,
    decode_square,
    join,
    real_side,
    stored_side,
    telling_file,
)

if TYPE_CHECKING:
    from torch import Tensor

SHUFFLE_SHARDS = 4
"""Shards that a worker mixes. Rows lie index by index, so every shard is a slice through the classes in a fixed shuffle
and a small buffer gives well-mixed batches; a shard of extra images has one class, but is small."""

FILES_AT_ONCE = 64
"""Real images that a task decodes together: 13 MB at 256 pixels."""


def stream_dataset(
    store: Store, shards: list[str], config: RunConfig, left_out: NDArray[np.int64], extra: NDArray[np.int64]
) -> ray.data.Dataset:
    """A Ray dataset that reads, decodes and filters the shards anew in every epoch, in a new order of shards.

    Args:
        store: the storage root.
        shards: paths of shards under the root.
        config: images_per_class cuts the exact prefix; train.seed is the seed of the order.
        left_out: sorted ids of images that are not wanted.
        extra: how many extra images of each class are wanted, int64 [classes]; empty for none at all.

    Returns:
        Rows of `image` uint8 [H, W, 3] and `label` int64. Its tasks raise `WorkError` on a row that cannot be decoded.
    """
    # The newer reader of Ray 2.60 starts an actor per 32 footers, tens of seconds for small sets. Its variable counts
    # only where nothing has imported Ray Data yet, as Ray Train has.
    ray.data.DataContext.get_current().use_datasource_v2 = False
    file_system, _ = store.filesystem("")
    paths = [store.filesystem(shard)[1] for shard in shards]
    rows = ray.data.read_parquet(
        paths,
        filesystem=file_system,
        include_paths=True,
        shuffle=ray.data.FileShuffleConfig(seed=config.train.seed),
        override_num_blocks=len(paths),  # else Ray cuts few shards into blocks, and reading and decoding share the CPUs
    ).select_columns([*COLUMNS, "path"])
    wanted = {"images_per_class": config.images_per_class, "max_side": stored_side(config.train)}
    decode = partial(decode_batch, **wanted, left_out=left_out, extra=extra)
    return rows.map_batches(decode, batch_format="pyarrow")


def stream_files(folder: RealFolder, config: RunConfig) -> ray.data.Dataset:
    """A Ray dataset that reads and decodes the files of real images anew in every epoch, in a new order of files.

    Every node needs the folder under the same path.

    Returns:
        Rows of `image` uint8 [H, W, 3] and `label` int64. Its tasks raise `InputError` on a file that is no image.
    """
    label_of = {path.parent.name: int(label) for path, label in zip(folder.files, folder.labels, strict=True)}
    rows = ray.data.read_binary_files(
        [str(path.absolute()) for path in folder.files],
        include_paths=True,
        shuffle=ray.data.FileShuffleConfig(seed=config.train.seed),
    )
    decode = partial(decode_files, label_of=label_of, side=real_side(config))
    return rows.map_batches(decode, batch_size=FILES_AT_ONCE)


def decode_files(batch: dict[str, Any], label_of: dict[str, int], side: int) -> dict[str, Any]:
    """Rows of `bytes` and `path` as `image` and `label` arrays; a file's class is its folder, also of a link."""
    images = np.empty((len(batch["path"]), side, side, 3), np.uint8)
    for row, (path, data) in enumerate(zip(batch["path"], batch["bytes"], strict=True)):
        with telling_file(path):
            images[row] = decode_square(data, side)
    return {"image": images, "label": np.array([label_of[PurePath(path).parent.name] for path in batch["path"]])}


def decode_batch(
    table: pa.Table,
    images_per_class: int,
    max_side: int,
    left_out: NDArray[np.int64] = NOTHING,
    extra: NDArray[np.int64] = NO_EXTRAS,
) -> dict[str, Any]:
    """A block of shard rows, with `path`, as `image` and `label` arrays; a block may hold rows of several shards."""
    parts = [
        decode_rows(table.filter(pc.equal(table["path"], path)), images_per_class, max_side, path, left_out, extra)
        for path in table["path"].unique().to_pylist()
    ]
    images, labels = join(parts)
    return {"image": images, "label": labels}


class StreamBatches:
    """One worker's part of a `stream_dataset`, as `pipeline.core.image_batches.ImageBatches`.

    Args:
        iterator: the worker's `ray.train.get_dataset_shard`.
        steps_per_epoch: full global batches of an epoch, for the learning rate.
        share: images of the worker in a global batch.
        shard_size: rows of a shard.
        seed: of the shuffle buffer.
    """

    def __init__(self, iterator: Any, steps_per_epoch: int, share: int, shard_size: int, seed: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._iterator = iterator
        self._share = share
        self._buffer = max(2 * share, SHUFFLE_SHARDS * shard_size)
        self._seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """As `ImageBatches.steps_per_epoch`."""
        return self._steps_per_epoch

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageBatches.epoch`; all workers get equally many batches."""
        batches = self._iterator.iter_torch_batches(
            batch_size=self._share,
            drop_last=True,
            local_shuffle_buffer_size=self._buffer,
            local_shuffle_seed=int(np.random.default_rng([self._seed, epoch]).integers(1 << 31)),
            device="cpu",
        )
        for batch in batches:
            yield batch["image"], batch["label"]


class StreamPasses:
    """One worker's real images of a `stream_files` beside a synthetic stream, as `pipeline.core.mixing.RealImages`.

    Passes begin and end anywhere in an epoch. One leaves out the few images that fill no part any more, others in each,
    since its order is new. A training that goes on after a loss begins a new pass.

    Args:
        iterator: the worker's `ray.train.get_dataset_shard`.
        share: real images of the worker in a global batch.
        seed: of the shuffle buffer.
    """

    def __init__(self, iterator: Any, share: int, seed: int) -> None:
        self._parts = self._endless(StreamBatches(iterator, 0, share, FILES_AT_ONCE, seed))

    def part(self, _step: int, /) -> tuple[Tensor, Tensor]:
        """As `RealImages.part`, in the order of the calls, whatever the step."""
        return next(self._parts)

    @staticmethod
    def _endless(batches: StreamBatches) -> Iterator[tuple[Tensor, Tensor]]:
        for turn in itertools.count():
            part = None
            for part in batches.epoch(turn):
                yield part
            if part is None:
                # Streams are split equally, so all workers come to the end of an empty one together.
                raise SharedError(
                    "a pass over the real images gave none; are the files of train.real_data still there?"
                )
