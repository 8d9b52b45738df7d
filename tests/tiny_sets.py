"""A set of 4 shards of 10 images by the tiny model, as a command line and as a config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config

SPACE = """
search: random
num_trials: 2
validation: {source: synthetic, images_per_class: 1}
base: [train.epochs=1, generate.num_actors=1]
space: {train.learning_rate: {loguniform: [0.1, 0.8]}}
"""
"""Of the smallest sweep: two trials of one epoch."""


def settings(model: Path, changes: Mapping[str, object] | None = None) -> list[str]:
    """KEY=VALUE words over the preset `fashion`; `changes` lie over those below."""
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
        **(changes or {}),
    }
    return [f"{key}={value}" for key, value in values.items()]


def tiny_config(model: Path, changes: Mapping[str, object] | None = None) -> RunConfig:
    return load_config("fashion", overrides=settings(model, changes))


def options(model: Path, root: Path | str, changes: Mapping[str, object] | None = None) -> list[str]:
    sets = [word for setting in settings(model, changes) for word in ("--set", setting)]
    return ["--preset", "fashion", "--root", str(root), *sets]


def training_options(root: Path | str, model: Path) -> list[str]:
    """Words of a command that makes images, trains an epoch with one worker, and scores, in seconds each."""
    changes = {
        "recipe.num_inference_steps": 2,
        "generate.shard_size": 20,
        "generate.batch_size": 10,
        "train.epochs": 1,
        "train.warmup_epochs": 0,
        "train.batch_size": 20,
        "train.num_workers": 1,
        "tracking.enabled": "true",
    }
    return options(model, root, changes)
