"""How training images reach the workers: all in shared memory, or decoded in every epoch through Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

# The newer Parquet reader of Ray 2.60 starts an actor per 32 footers, tens of seconds for small sets.
os.environ.setdefault("RAY_DATA_USE_DATASOURCE_V2", "0")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.image_filters import NOTHING, Selection, select_images
from pipeline.core.image_set import each_summary, prefix_shards, set_totals, shard_path
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import FilterConfig
from pipeline.core.training_images import (
    COLUMNS,
    Arrays,
    check_classes,
    check_memory,
    decode_rows,
    join,
    real_images,
    synthetic_images,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
SHUFFLE_SHARDS = 4
"""Shards that a worker mixes. Rows lie index by index, so every shard is a slice through the classes in a fixed shuffle
and a small buffer gives well-mixed batches."""


@dataclass(frozen=True)
class TrainingData:
    """What a training reads: either arrays, or shards to stream.

    Args:
        num_images: usable images of an epoch.
        source: JSON-able, for the model's manifest.
        arrays: images and labels in memory, or None.
        shards: paths under the root to stream, or None.
        shard_size: rows of a shard; 0 without shards.
        left_out: sorted ids of images that are not streamed.
    """

    num_images: int
    source: dict[str, Any]
    arrays: Arrays | None = None
    shards: list[str] | None = None
    shard_size: int = 0
    left_out: NDArray[np.int64] = field(default_factory=NOTHING.copy)

    def stream(self, store: Store, config: RunConfig) -> ray.data.Dataset:
        """The Ray dataset of the shards."""
        assert self.shards is not None
        return stream_dataset(store, self.shards, config, self.left_out)


def open_training_data(config: RunConfig, recipe: Recipe, store: Store) -> TrainingData:
    """Find and, for `train.ingest=memory`, decode the training images; on the driver, before Ray starts.

    Raises:
        InputError: the image set is not there or too small, a class is empty, or memory would be exceeded.
        WorkError: a usable image cannot be decoded.
    """
    if config.train.data == "real":
        check_memory(len(recipe.classes) * config.images_per_class, 32, 32, config)
        images, labels = real_images(config)
        return TrainingData(len(labels), {"real": config.classes}, arrays=(images, labels))
    numbers, shard_size = prefix_shards(store, recipe, config.images_per_class)
    shards = [shard_path(recipe.images_dir, number) for number in numbers]
    totals = set_totals(each_summary(store, recipe.images_dir, numbers))
    source = {"image_set": recipe.images_dir, "set_sha256": totals["set_sha256"], "shards": len(shards)}
    filters = config.train.filters
    stream = config.train.ingest == "stream"
    selection = None
    if stream or filters != FilterConfig():
        selection = select_images(store, shards, config.images_per_class, filters)
        check_classes(selection.labels, recipe.classes.names)
        source |= tell_left_out(selection, recipe)
    left_out = NOTHING if selection is None else selection.left_out
    if stream:
        assert selection is not None
        return TrainingData(len(selection.labels), source, shards=shards, shard_size=shard_size, left_out=left_out)
    num_images = len(recipe.classes) * config.images_per_class if selection is None else len(selection.labels)
    check_memory(num_images, config.recipe.width, config.recipe.height, config)
    images, labels = synthetic_images(store, shards, config, left_out)
    check_classes(labels, recipe.classes.names)
    return TrainingData(len(labels), source, arrays=(images, labels))


def tell_left_out(selection: Selection, recipe: Recipe) -> dict[str, Any]:
    """Log what the filters leave out; the same for the model's manifest, by filter and WNID, empty when nothing."""
    if not len(selection.left_out):
        return {}
    counts = {
        name: {recipe.classes.wnids[label]: count for label, count in sorted(by_class.items())}
        for name, by_class in selection.counts.items()
    }
    total = len(selection.left_out) + len(selection.labels)
    said = ", ".join(
        f"{name} {sum(by_class.values())} in {len(by_class)} classes (most {max(by_class.values())})"
        for name, by_class in counts.items()
    )
    logger.info("train: the filters leave out %d of %d images: %s", len(selection.left_out), total, said)
    return {"left_out": counts}


def stream_dataset(store: Store, shards: list[str], config: RunConfig, left_out: NDArray[np.int64]) -> ray.data.Dataset:
    """A Ray dataset that reads, decodes and filters the shards anew in every epoch, in a new order of shards.

    Args:
        store: the storage root.
        shards: paths of shards under the root.
        config: images_per_class cuts the exact prefix; train.seed is the seed of the order.
        left_out: sorted ids of images that are not wanted.

    Returns:
        Rows of `image` uint8 [H, W, 3] and `label` int64. Its tasks raise `WorkError` on a row that cannot be decoded.
    """
    file_system, _ = store.filesystem("")
    paths = [store.filesystem(shard)[1] for shard in shards]
    rows = ray.data.read_parquet(
        paths,
        filesystem=file_system,
        include_paths=True,
        shuffle=ray.data.FileShuffleConfig(seed=config.train.seed),
    ).select_columns([*COLUMNS, "path"])
    wanted = {"images_per_class": config.images_per_class, "input_size": config.train.input_size}
    decode = partial(decode_batch, **wanted, left_out=left_out)
    return rows.map_batches(decode, batch_format="pyarrow")


def decode_batch(
    table: pa.Table, images_per_class: int, input_size: int, left_out: NDArray[np.int64] = NOTHING
) -> dict[str, Any]:
    """A block of shard rows, with `path`, as `image` and `label` arrays; a block may hold rows of several shards."""
    parts = [
        decode_rows(table.filter(pc.equal(table["path"], path)), images_per_class, input_size, path, left_out)
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
