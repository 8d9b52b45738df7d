"""What a trained model IS, where it lies and what its files are called. No torch in here: drivers start at once."""

from __future__ import annotations

from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import ID_LENGTH, SCHEMA_VERSION, content_hash
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import TrainConfig

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
GROUPS = ("synthetic", "real")
"""What a model was trained on; the twins of a report, in its order."""
REAL_DATA = "fashion_mnist"
"""The class table whose real training images are known."""

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

LATER = frozenset({"multi_crop", "filters", "sync_batch_norm", "ema_decay"})
"""Fields that came after the first models: in an identity only when they are not at their defaults, so that a model
keeps the id it was made under."""


def model_identity(config: RunConfig, recipe: Recipe) -> tuple[dict[str, Any], str]:
    """What a trained model IS, JSON-able, and its sha256 (64 hex digits): data, classes and training settings.

    A real twin does not depend on the recipe, so all recipes share it.
    """
    settings = config.train
    left_out = {*WHERE_AND_HOW, "data", *(name for name in LATER if at_default(settings, name))}
    if settings.head == "linear":
        left_out.add("temperature")
    left_out.add("multi_crop" if settings.augmentation == "pytorch" else "min_crop_scale")
    identity = {
        "schema_version": SCHEMA_VERSION,
        "data": {"real": REAL_DATA} if config.train.data == "real" else {"image_set": recipe.hash},
        "images_per_class": config.images_per_class,
        "classes": recipe.classes.hash,
        "train": settings.model_dump(mode="json", exclude=left_out),
    }
    return identity, content_hash(identity)


def at_default(settings: TrainConfig, name: str) -> bool:
    """Whether a field has its default."""
    return bool(getattr(settings, name) == TrainConfig.model_fields[name].default)


def model_directory(identity_hash: str) -> str:
    """Where a model lies under the storage root."""
    return f"models/{identity_hash[:ID_LENGTH]}"


def named_model(name: str) -> str:
    """The directory of a model that a user names. Raises `InputError` for what is no directory name."""
    if "/" in name or name in ("", ".", ".."):
        raise InputError(f"{name!r} is no directory name under models/; give its 16 digits")
    return f"models/{name}"
