"""What a trained model IS, where it lies and what its files are called. No torch in here: drivers start at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import ID_LENGTH, SCHEMA_VERSION, content_hash
from pipeline.core.real_folder import open_real_folder
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import TrainConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GROUPS = ("synthetic", "mixed", "real")
"""What a model was trained on, in the order of a report."""
TWINS = ("synthetic", "real")
"""The two that a gap is between."""
REAL_DATA = "fashion_mnist"
"""The class table whose real training images are known without `train.real_data`."""

WHERE_AND_HOW = frozenset(
    {
        "device",
        "num_workers",
        "min_workers",
        "max_batch_per_worker",
        "num_cpus_per_worker",
        "torch_threads",
        "ingest",
        "max_memory_gib",
        "checkpoint_every_epochs",
        "max_failures",
    }
)
"""Fields of `TrainConfig` that are not in a model's identity: they say where and how it is trained. The number of
workers and the ingest do move the result a little, as a seed does (groups of the batch norm, order of the images)."""

OF_REAL_DATA = frozenset({"data", "real_data", "min_real_per_class", "max_real_per_class"})
"""Fields that choose the images: the images themselves are in the identity."""
LENGTH = frozenset({"epochs", "warmup_epochs"})
"""Fields that go with the number of images."""
OF_MIXING = frozenset({"real_share", "separate_batch_norm"})
"""Fields that count for `train.data=mixed` only."""
OF_GENERATED = frozenset({"filters"})
"""Fields that choose among generated images: a real twin reads none, so all filters share it."""
LATER = frozenset(
    {"multi_crop", "filters", "sync_batch_norm", "ema_decay", "stored_size", "extra_images", "logit_adjustment"}
)
"""Fields that came after the first models: in an identity only when they are not at their defaults, so that a model
keeps the id it was made under."""


def model_identity(config: RunConfig, recipe: Recipe) -> tuple[dict[str, Any], str]:
    """What a trained model IS, JSON-able, and its sha256 (64 hex digits): data, classes and training settings.

    A real twin does not depend on the recipe, so all recipes share it. Raises `InputError` when `train.real_data` is
    to be used and is not what it should be, or there is one class only.
    """
    settings = config.train
    if len(recipe.classes) < 2:
        raise InputError(
            f"classes {config.classes!r} names one class; a classifier tells at least two apart: add one to the table"
        )
    left_out = {*WHERE_AND_HOW, *OF_REAL_DATA, *(name for name in LATER if at_default(settings, name))}
    if settings.data != "mixed":
        left_out |= OF_MIXING
    if settings.data == "real":
        left_out |= OF_GENERATED
    if settings.head == "linear":
        left_out.add("temperature")
    left_out.add("multi_crop" if settings.augmentation == "pytorch" else "min_crop_scale")
    train = settings.model_dump(mode="json", exclude=left_out)
    if settings.filters.min_clip_score is None and "filters" in train:  # older than these two
        train["filters"] = settings.filters.model_dump(mode="json", exclude={"min_clip_score", "clip_audit"})
    identity = {
        "schema_version": SCHEMA_VERSION,
        "data": data_identity(config, recipe),
        "images_per_class": config.images_per_class,
        "classes": recipe.classes.hash,
        "train": train,
    }
    return identity, content_hash(identity)


def data_identity(config: RunConfig, recipe: Recipe) -> dict[str, str]:
    """What a model learns from: the image set's hash, what names the real images, or both. Raises `InputError`."""
    settings, found = config.train, {}
    if settings.data != "real":
        found["image_set"] = recipe.hash
    if settings.data != "synthetic":
        found["real"] = REAL_DATA
        if settings.real_data is not None:
            found["real"] = open_real_folder(settings, recipe.classes, config.images_per_class).fingerprint
    return found


def run_parameters(config: RunConfig, identity: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a training's MLflow run: what it IS, its images' recipe, where and how it is trained."""
    of_images = {} if config.train.data == "real" else {"recipe": config.recipe.model_dump(mode="json")}
    rest = config.train.model_dump(mode="json", include=set(WHERE_AND_HOW | OF_REAL_DATA))  # others are in identity
    return {**identity, **of_images, "where_and_how": rest}


def at_default(settings: TrainConfig, name: str) -> bool:
    """Whether a field has its default."""
    return bool(getattr(settings, name) == TrainConfig.model_fields[name].default)


def model_directory(identity_hash: str) -> str:
    """Where a model lies under the storage root."""
    return f"models/{identity_hash[:ID_LENGTH]}"


def registered_name(config: RunConfig) -> str:
    """What a run's model is called in a model registry unless the user says otherwise."""
    return f"synthclones-{Path(config.classes).stem}"


def named_model(name: str) -> str:
    """The directory of a model that a user names. Raises `InputError` for what is no directory name."""
    if "/" in name or name in ("", ".", ".."):
        raise InputError(f"{name!r} is no directory name under models/; give its 16 digits")
    return f"models/{name}"
