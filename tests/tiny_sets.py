"""A set of 4 shards of 10 images by the tiny model, as a command line and as a config."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config


def settings(model: Path) -> list[str]:
    """KEY=VALUE words over the preset `fashion`."""
    values = {
        "recipe.model.id": model,
        "recipe.width": 16,
        "recipe.height": 16,
        "recipe.num_inference_steps": 1,
        "images_per_class": 4,
        "generate.shard_size": 10,
        "generate.batch_size": 5,
        "generate.num_actors": 1,
        "tracking.enabled": "false",
    }
    return [f"{key}={value}" for key, value in values.items()]


def tiny_config(model: Path) -> RunConfig:
    return load_config("fashion", overrides=settings(model))


def options(model: Path, root: Path) -> list[str]:
    sets = [word for setting in settings(model) for word in ("--set", setting)]
    return ["--preset", "fashion", "--root", str(root), *sets]
