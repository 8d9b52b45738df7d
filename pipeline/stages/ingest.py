"""How training images reach the workers: all in shared memory, or decoded in every epoch through Ray Data."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.clip_scores import check_audited
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.extra_counts import NO_EXTRAS, counts_by_class
from pipeline.core.extra_set import needed_extras
from pipeline.core.image_filters import NOTHING, Selection, select_images
from pipeline.core.image_set import each_summary, prefix_shards, set_totals, shard_path
from pipeline.core.mixing import check_mixing
from pipeline.core.real_folder import RealFolder
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import FilterConfig, TrainConfig
from pipeline.core.training_images import (
    Arrays,
    Part,
    check_classes,
    check_memory,
    folder_images,
    real_folder,
    real_images,
    real_side,
    synthetic_images,
)
from pipeline.stages.image_streams import stream_dataset, stream_files

if TYPE_CHECKING:
    from ray.data import Dataset

UNEVEN = 2
"""Images of the most frequent class over those of the rarest from which on a training says so."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a training reads: either arrays, or shards or files to stream.

    Args:
        num_images: usable images of an epoch.
        source: JSON-able, for the model's manifest.
        class_counts: usable images of every class, int64 [classes].
        arrays: images and labels in memory, or None.
        real: of a mixed training the real images; all else is of the synthetic ones.
        files: of real images to stream, or None.
        shards: paths under the root to stream, or None.
        shard_size: rows of a shard; 0 without shards.
        left_out: sorted ids of images that are not streamed.
        extra: how many extra images of each class are streamed, int64 [classes]; empty for none at all.
    """

    num_images: int
    source: dict[str, Any]
    class_counts: NDArray[np.int64]
    arrays: Arrays | None = None
    real: TrainingData | None = None
    files: RealFolder | None = None
    shards: list[str] | None = None
    shard_size: int = 0
    left_out: NDArray[np.int64] = field(default_factory=NOTHING.copy)
    extra: NDArray[np.int64] = field(default_factory=NO_EXTRAS.copy)

    def class_shares(self, settings: TrainConfig) -> NDArray[np.float64]:
        """The share of every class in the batches, float64 [classes]; of a mixed training those of both its parts."""
        shares: NDArray[np.float64] = self.class_counts / self.class_counts.sum()
        if self.real is None:
            return shares
        return settings.real_share * self.real.class_shares(settings) + (1 - settings.real_share) * shares

    def stream(self, store: Store, config: RunConfig) -> Dataset:
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
        data = open_real_data(config, recipe)
    else:
        data = open_synthetic_data(config, recipe, store)
        if config.train.data == "mixed":
            data = mix(data, open_real_data(config, recipe), config)
    tell_shares(data.class_shares(config.train), config.train)
    return data


def tell_shares(shares: NDArray[np.float64], settings: TrainConfig) -> None:
    """Log that classes are far from equally frequent, with what to do about it, unless that is done."""
    ratio = shares.max() / shares.min()
    if ratio > UNEVEN and settings.logit_adjustment == 0:
        logger.info(
            "train: the most frequent class has %.1f times the images of the rarest, and will be predicted more often; "
            "--set train.logit_adjustment=1 takes that out",
            ratio,
        )


def open_real_data(config: RunConfig, recipe: Recipe) -> TrainingData:
    """The real training images; errors as for `open_training_data`."""
    check_memory(real_in_memory(config, recipe), config)
    folder = real_folder(config)
    if folder is None:
        images, labels = real_images(config)
        return TrainingData(len(labels), {"real": config.classes}, np.bincount(labels), arrays=(images, labels))
    source = {"real": folder.where, "fingerprint": folder.fingerprint, "fewer_images": folder.fewer}
    counts = np.bincount(folder.labels)  # a folder has images of every class
    if config.train.ingest == "stream":
        return TrainingData(len(folder), source, counts, files=folder)
    return TrainingData(len(folder), source, counts, arrays=folder_images(folder, real_side(config)))


def real_in_memory(config: RunConfig, recipe: Recipe) -> list[Part]:
    """The real images that a training decodes at once; none when they are streamed or not asked for."""
    if config.train.data == "synthetic":
        return []
    folder = real_folder(config)
    if folder is None:
        return [(len(recipe.classes) * config.images_per_class, 32, 32)]
    return [] if config.train.ingest == "stream" else [(len(folder), real_side(config), real_side(config))]


def mix(synthetic: TrainingData, real: TrainingData, config: RunConfig) -> TrainingData:
    """Both, for batches of both. Raises `InputError` when they do not fit each other."""
    check_mixing(config.train, real.num_images, synthetic.num_images)
    shapes = [shape_of(data, config) for data in (synthetic, real)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"train.data=mixed needs images of one size, and the generated ones have {shapes[0]} pixels, the real ones "
            f"{shapes[1]}; change recipe.width and recipe.height"
        )
    source = {**synthetic.source, **real.source, "real_images": real.num_images}
    return replace(synthetic, source=source, real=real)


def shape_of(data: TrainingData, config: RunConfig) -> tuple[int, ...]:
    """(height, width) of the images of a mixed training. Raises `InputError` when a stream's are no squares."""
    side = real_side(config) if data.arrays is None else 0
    return (side, side) if data.arrays is None else data.arrays[0].shape[1:3]


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
    if filters.clip_audit is not None:
        check_audited(store, filters.clip_audit, recipe, config.images_per_class, totals["set_sha256"])
    stream = config.train.ingest == "stream"
    selection = None
    if stream or filters != FilterConfig():
        selection = select_images(store, shards, config.images_per_class, filters, extra)
        check_classes(selection.labels, recipe.classes.names)
        source |= tell_left_out(selection, recipe)
    left_out = NOTHING if selection is None else selection.left_out
    if stream:
        assert selection is not None
        counts = np.bincount(selection.labels)
        return TrainingData(
            len(selection.labels), source, counts, shards=shards, shard_size=shard_size, left_out=left_out, extra=extra
        )
    whole = len(recipe.classes) * config.images_per_class + config.train.num_extra
    num_images = whole if selection is None else len(selection.labels)
    parts = [(num_images, config.recipe.width, config.recipe.height), *real_in_memory(config, recipe)]
    check_memory(parts, config)
    images, labels = synthetic_images(store, shards, config, left_out, extra)
    check_classes(labels, recipe.classes.names)
    return TrainingData(len(labels), source, np.bincount(labels), arrays=(images, labels))


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
