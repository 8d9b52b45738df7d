"""How training images reach the workers: all in shared memory, or decoded in every epoch through Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
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
from pipeline.core.errors import InputError
from pipeline.core.extra_counts import NO_EXTRAS, counts_by_class
from pipeline.core.extra_set import needed_extras
from pipeline.core.image_filters import NOTHING, Selection, select_images
from pipeline.core.image_set import each_summary, prefix_shards, set_totals, shard_path
from pipeline.core.mixing import check_mixing
from pipeline.core.real_folder import RealFolder
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import FilterConfig
from pipeline.core.training_images import (
    COLUMNS,
    Arrays,
    check_classes,
    check_memory,
    decode_rows,
    decode_square,
    folder_images,
    join,
    real_folder,
    real_images,
    real_side,
    stored_side,
    synthetic_images,
    telling_file,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
SHUFFLE_SHARDS = 4
"""Shards that a worker mixes. Rows lie index by index, so every shard is a slice through the classes in a fixed shuffle
and a small buffer gives well-mixed batches; a shard of extra images has one class, but is small."""

FILES_AT_ONCE = 64
"""Real images that a task decodes together: 13 MB at 256 pixels."""


@dataclass(frozen=True)
class TrainingData:
    """What a training reads: either arrays, or shards or files to stream.

    Args:
        num_images: usable images of an epoch.
        source: JSON-able, for the model's manifest.
        arrays: images and labels in memory, or None; of a mixed training the synthetic ones.
        real_arrays: of a mixed training the real images and labels.
        files: of real images to stream, or None.
        shards: paths under the root to stream, or None.
        shard_size: rows of a shard; 0 without shards.
        left_out: sorted ids of images that are not streamed.
        extra: how many extra images of each class are streamed, int64 [classes]; empty for none at all.
    """

    num_images: int
    source: dict[str, Any]
    arrays: Arrays | None = None
    real_arrays: Arrays | None = None
    files: RealFolder | None = None
    shards: list[str] | None = None
    shard_size: int = 0
    left_out: NDArray[np.int64] = field(default_factory=NOTHING.copy)
    extra: NDArray[np.int64] = field(default_factory=NO_EXTRAS.copy)

    def stream(self, store: Store, config: RunConfig) -> ray.data.Dataset:
        """The Ray dataset of the shards or files."""
        if self.files is not None:
            return stream_files(self.files, config)
        assert self.shards is not None
        return stream_dataset(store, self.shards, config, self.left_out, self.extra)


def open_training_data(config: RunConfig, recipe: Recipe, store: Store) -> TrainingData:
    """Find and, for `train.ingest=memory`, decode the training images; on the driver, before Ray starts.

    Raises:
        InputError: the image set is not there or too small, a class is empty, or memory would be exceeded.
        WorkError: a usable image cannot be decoded.
    """
    if config.train.data == "real":
        return open_real_data(config, recipe)
    synthetic = open_synthetic_data(config, recipe, store)
    return mix(synthetic, open_real_data(config, recipe), config) if config.train.data == "mixed" else synthetic


def open_real_data(config: RunConfig, recipe: Recipe) -> TrainingData:
    """The real training images; errors as for `open_training_data`."""
    folder = real_folder(config)
    if folder is None:
        check_memory(len(recipe.classes) * config.images_per_class, 32, 32, config)
        images, labels = real_images(config)
        return TrainingData(len(labels), {"real": config.classes}, arrays=(images, labels))
    source = {"real": folder.where, "fingerprint": folder.fingerprint, "fewer_images": folder.fewer}
    if config.train.ingest == "stream":
        return TrainingData(len(folder), source, files=folder)
    side = real_side(config)
    check_memory(len(folder), side, side, config)
    return TrainingData(len(folder), source, arrays=folder_images(folder, side))


def mix(synthetic: TrainingData, real: TrainingData, config: RunConfig) -> TrainingData:
    """Both, for batches of both. Raises `InputError` when they do not fit each other."""
    assert synthetic.arrays is not None and real.arrays is not None
    check_mixing(config.train, real.num_images, synthetic.num_images)
    shapes = [arrays[0].shape[1:3] for arrays in (synthetic.arrays, real.arrays)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"train.data=mixed needs images of one size, and the generated ones have {shapes[0]} pixels, the real ones "
            f"{shapes[1]}; change recipe.width and recipe.height"
        )
    return TrainingData(
        num_images=synthetic.num_images,
        source={**synthetic.source, **real.source, "real_images": real.num_images},
        arrays=synthetic.arrays,
        real_arrays=real.arrays,
    )


def open_synthetic_data(config: RunConfig, recipe: Recipe, store: Store) -> TrainingData:
    """The image set's prefix and `train.extra_images`; errors as for `open_training_data`."""
    numbers, shard_size = prefix_shards(store, recipe, config.images_per_class)
    extra = counts_by_class(config.train.extra_images, recipe.classes)
    more = needed_extras(store, recipe, extra.tolist())
    shards = [shard_path(recipe.images_dir, number) for number in [*numbers, *more]]
    totals = set_totals(each_summary(store, recipe.images_dir, numbers))
    source: dict[str, Any] = {
        "image_set": recipe.images_dir,
        "set_sha256": totals["set_sha256"],
        "shards": len(numbers),
    }
    if more:
        sha256 = set_totals(each_summary(store, recipe.images_dir, more))["set_sha256"]
        source["extra"] = {"images": config.train.num_extra, "shards": len(more), "sha256": sha256}
    filters = config.train.filters
    stream = config.train.ingest == "stream"
    selection = None
    if stream or filters != FilterConfig():
        selection = select_images(store, shards, config.images_per_class, filters, extra)
        check_classes(selection.labels, recipe.classes.names)
        source |= tell_left_out(selection, recipe)
    left_out = NOTHING if selection is None else selection.left_out
    if stream:
        assert selection is not None
        count = len(selection.labels)
        return TrainingData(count, source, shards=shards, shard_size=shard_size, left_out=left_out, extra=extra)
    whole = len(recipe.classes) * config.images_per_class + config.train.num_extra
    num_images = whole if selection is None else len(selection.labels)
    check_memory(num_images, config.recipe.width, config.recipe.height, config)
    images, labels = synthetic_images(store, shards, config, left_out, extra)
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
    file_system, _ = store.filesystem("")
    paths = [store.filesystem(shard)[1] for shard in shards]
    rows = ray.data.read_parquet(
        paths,
        filesystem=file_system,
        include_paths=True,
        shuffle=ray.data.FileShuffleConfig(seed=config.train.seed),
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
