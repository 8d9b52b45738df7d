"""The images that a search compares its trials on: neither trained on nor in any test set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.image_set import prefix_shards, shard_path
from pipeline.core.model_identity import REAL_DATA
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import ValidationConfig
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_images import Arrays, synthetic_images

SEED_NAMESPACE = "validation"
"""Seeds of the synthetic validation images: no training set has them."""


def synthetic_validation(base: RunConfig, settings: ValidationConfig) -> RunConfig:
    """The run whose image set is the synthetic validation set: the preset's recipe, other seeds."""
    recipe = base.recipe.model_copy(update={"seed_namespace": SEED_NAMESPACE})
    return base.model_copy(update={"recipe": recipe, "images_per_class": settings.images_per_class})


def load_validation(base: RunConfig, settings: ValidationConfig, store: Store, train: TrainConfig) -> Arrays:
    """Images uint8 [N, H, W, 3] and labels int64 [N].

    Args:
        base: the search's preset; its classes, data folder and, for `synthetic`, recipe.
        settings: which images.
        store: the storage root that holds the synthetic set.
        train: its input size.

    Raises:
        InputError: the images are not there, are too few, or would be trained on.
        WorkError: an image cannot be read.
    """
    if settings.source == "synthetic":
        config = synthetic_validation(base.model_copy(update={"train": train}), settings)
        recipe = resolve_recipe(config)
        numbers, _ = prefix_shards(store, recipe, config.images_per_class)
        return synthetic_images(store, [shard_path(recipe.images_dir, number) for number in numbers], config)
    if settings.path is not None:
        return _from_path(settings, load_class_table(base.classes), train.input_size)
    if base.classes != REAL_DATA:
        raise InputError(
            f"validation.source is real, but no real images of {base.classes!r} are known; give validation.path "
            "a folder with one sub-folder per WNID, or validation.source: synthetic"
        )
    images, labels = load_fashion_mnist(base.data_dir, "train")
    rows = class_suffix(labels, settings.images_per_class)
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


def _from_path(settings: ValidationConfig, classes: ClassTable, input_size: int) -> Arrays:
    from pipeline.core.real_images import open_images  # torch and kornia, seconds in every trial's process
    from pipeline.core.test_sets import spec_of

    found = open_images(spec_of("validation"), settings.path or "", classes)
    chosen = []
    for label in range(len(classes)):
        positions = np.flatnonzero(found.labels == label)
        if len(positions) < settings.images_per_class:
            raise InputError(
                f"validation.path {settings.path!r} has {len(positions)} images of {classes.wnids[label]}, fewer than "
                f"validation.images_per_class {settings.images_per_class}; lower it"
            )
        chosen += positions[: settings.images_per_class].tolist()
    return found.crops(chosen, input_size), found.labels[chosen]
