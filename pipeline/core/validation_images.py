"""The images that a search compares its trials on: neither trained on nor in any test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.datasets import as_rgb32, class_prefix, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.image_set import prefix_shards, shard_path
from pipeline.core.model_identity import REAL_DATA
from pipeline.core.real_folder import open_real_folder
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import ValidationConfig
from pipeline.core.training_images import Arrays, synthetic_images

SEED_NAMESPACE = "validation"
"""Seeds of the synthetic validation images: no training set has them."""


def synthetic_validation(base: RunConfig, settings: ValidationConfig) -> RunConfig:
    """The run whose image set is the synthetic validation set: the preset's recipe, other seeds."""
    recipe = base.recipe.model_copy(update={"seed_namespace": SEED_NAMESPACE})
    return base.model_copy(update={"recipe": recipe, "images_per_class": settings.images_per_class})


def load_validation(base: RunConfig, settings: ValidationConfig, store: Store, trained: RunConfig) -> Arrays:
    """Images uint8 [N, H, W, 3] and labels int64 [N].

    Args:
        base: the search's preset; its classes, data folder and, for `synthetic`, recipe.
        settings: which images.
        store: the storage root that holds the synthetic set.
        trained: a run that is scored on them: its input size, and real images that it trains on.

    Raises:
        InputError: the images are not there, are too few, or would be trained on.
        WorkError: an image cannot be read.
    """
    if settings.source == "synthetic":
        config = synthetic_validation(base.model_copy(update={"train": trained.train}), settings)
        recipe = resolve_recipe(config)
        numbers, _ = prefix_shards(store, recipe, config.images_per_class)
        return synthetic_images(store, [shard_path(recipe.images_dir, number) for number in numbers], config)
    if settings.path is not None:
        return _from_path(settings, load_class_table(base.classes), trained)
    if base.classes != REAL_DATA:
        raise InputError(
            f"validation.source is real, but no real images of {base.classes!r} are known; give validation.path "
            "a folder with one sub-folder per WNID, or validation.source: synthetic"
        )
    images, labels = load_fashion_mnist(base.data_dir, "train")
    rows = class_suffix(labels, settings.images_per_class)
    is_twin = trained.train.data != "synthetic" and trained.train.real_data is None
    if is_twin and np.isin(rows, class_prefix(labels, trained.images_per_class)).any():
        raise InputError(f"{settings.images_per_class} {_TRAINED_ON}")
    return as_rgb32(images[rows]), labels[rows].astype(np.int64)


def class_suffix(labels: NDArray[np.uint8], images_per_class: int) -> NDArray[np.int64]:
    """Positions of the last `images_per_class` images of each class, int64; real twins train on the first ones.

    Raises:
        InputError: a class has no more images than that.
    """
    positions = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    fewest = min(len(found) for found in positions)
    if images_per_class >= fewest:
        raise InputError(f"validation.images_per_class must be below {fewest} (got {images_per_class}); lower it")
    return np.concatenate([found[-images_per_class:] for found in positions])


_TRAINED_ON = (
    "validation images of each class are not left beside the real images that are trained on; lower "
    "validation.images_per_class, images_per_class or train.max_real_per_class, or give another validation.path"
)


def _from_path(settings: ValidationConfig, classes: ClassTable, trained: RunConfig) -> Arrays:
    from pipeline.core.real_images import FolderImages, open_images  # torch and kornia, seconds in a trial's process
    from pipeline.core.test_sets import spec_of

    found = open_images(spec_of("validation"), settings.path or "", classes)
    gib = len(classes) * settings.images_per_class * trained.train.input_size**2 * 3 / 2**30
    if gib > trained.train.max_memory_gib:
        raise InputError(
            f"{len(classes) * settings.images_per_class:,} decoded validation images take {gib:.1f} GiB, more than "
            f"train.max_memory_gib {trained.train.max_memory_gib}; lower validation.images_per_class (tune.grow: "
            "--validation-images), or raise the limit"
        )
    chosen = []
    for label in range(len(classes)):
        positions = np.flatnonzero(found.labels == label)
        if len(positions) < settings.images_per_class:
            raise InputError(
                f"validation.path {settings.path!r} has {len(positions)} images of {classes.wnids[label]}, fewer than "
                f"validation.images_per_class {settings.images_per_class}; lower it"
            )
        chosen += positions[-settings.images_per_class :].tolist()
    if isinstance(found, FolderImages) and trained.train.data != "synthetic" and trained.train.real_data is not None:
        taken = open_real_folder(trained.train, classes, trained.images_per_class).files
        if not _places([found.files[position] for position in chosen]).isdisjoint(_places(taken)):
            raise InputError(f"{settings.path!r}: {settings.images_per_class} {_TRAINED_ON}")
    return found.crops(chosen, trained.train.input_size), found.labels[chosen]


def _places(files: Sequence[Path]) -> set[tuple[Path, str]]:
    """Files by their real folder and name, so that two ways to one folder are one."""
    folders = {folder: folder.resolve() for folder in {path.parent for path in files}}
    return {(folders[path.parent], path.name) for path in files}
