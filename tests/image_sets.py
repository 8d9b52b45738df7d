"""Image sets for tests of training: real Fashion-MNIST pictures in the place of generated ones, to be learnt."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.extra_set import publish_extra_manifest
from pipeline.core.extra_shards import extra_shards, first_row, shard_ids
from pipeline.core.identity import FIRST_EXTRA, num_shards, split_image_id
from pipeline.core.image_set import claim_image_set, shard_path
from pipeline.core.images import encode_image, perceptual_hash, pixel_std
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import OK
from pipeline.core.shard_maker import shard_bytes, summarize

NO_MODEL = {"id": "nobody/nothing", "revision": "a" * 40}
"""A recipe may name a pinned hub model that is never fetched."""
Change = Callable[[int, dict[str, Any]], dict[str, Any]]


def write_noise(root: Path) -> Path:
    """Three pictures of noise for each Fashion-MNIST class, in folders by WNID."""
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        (root / wnid).mkdir()
        for number in range(3):
            noise = np.random.default_rng([label, number]).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / wnid / f"{number}.png")
    return root


def small_config(images_per_class: int = 8, shard_size: int = 30, engine_batch: int = 50, **train: Any) -> RunConfig:
    """Fashion-MNIST at 32x32 without MLflow; `train` lies over settings that end in seconds."""
    settings = {"input_size": 32, "batch_size": 16, "epochs": 2, "warmup_epochs": 1, "min_crop_scale": 0.8, **train}
    return RunConfig.model_validate(
        {
            "images_per_class": images_per_class,
            "recipe": {"model": NO_MODEL},
            "generate": {"shard_size": shard_size, "batch_size": engine_batch},
            "train": settings,
            "tracking": {"enabled": False},
        }
    )


def write_image_set(config: RunConfig, store: Store, change: Change = lambda _row, row: row) -> Recipe:
    """Publish the shards of a config's image set; `change(row number, row)` may spoil rows. The set's recipe."""
    recipe = resolve_recipe(config)
    claim_image_set(config, recipe, store)
    size = config.generate.shard_size
    pictures, prompt_rows = pictures_by_class(), PromptRows(recipe)
    for shard in range(num_shards(len(recipe.classes), config.images_per_class, size)):
        prompts = prompt_rows.table(shard * size, (shard + 1) * size).to_pylist()
        made = (make_row(prompt, pictures, config) for prompt in prompts)
        rows = [change(number, row) for number, row in enumerate(made, start=shard * size)]
        data = shard_bytes(rows, summarize(shard, shard * size, rows, time.time()))
        store.write_bytes(shard_path(recipe.images_dir, shard), data)
    return recipe


def write_extras(
    config: RunConfig, store: Store, counts: Sequence[int], change: Change = lambda _row, row: row
) -> None:
    """Publish the extra shards of a config's image set, as `write_image_set` the uniform ones, and their manifest."""
    recipe, size = resolve_recipe(config), config.generate.batch_size
    pictures, prompt_rows = pictures_by_class(), PromptRows(recipe)
    for shard in extra_shards(counts, size):
        prompts = prompt_rows.table_of(shard_ids(shard, size, recipe.permutation)).to_pylist()
        made = (make_row(prompt, pictures, config) for prompt in prompts)
        rows = [change(number, row) for number, row in enumerate(made)]
        data = shard_bytes(rows, summarize(shard, first_row(shard, size), rows, time.time()))
        store.write_bytes(shard_path(recipe.images_dir, shard), data)
    publish_extra_manifest(store, recipe, size, counts)


@cache
def pictures_by_class() -> Mapping[int, NDArray[np.uint8]]:
    """Real training images uint8 [6000, 28, 28] of each class."""
    images, labels = load_fashion_mnist(None, "train")
    return {label: images[labels == label] for label in range(10)}


def make_row(prompt: Mapping[str, Any], pictures: Mapping[int, NDArray[np.uint8]], config: RunConfig) -> dict[str, Any]:
    """One row of a shard from its row of the prompt table, as `pipeline.core.shard_maker` makes it."""
    class_index, index = split_image_id(prompt["image_id"])
    picture = index - FIRST_EXTRA + 3000 if index >= FIRST_EXTRA else index  # extra ones are others than the uniform
    pixels = as_rgb32(pictures[class_index][picture : picture + 1])[0]
    data = encode_image(pixels, config.recipe)
    return {
        **prompt,
        "image": {"bytes": data, "path": None},
        "status": OK,
        "reason": None,
        "width": 32,
        "height": 32,
        "sha256": sha256_bytes(data),
        "phash": perceptual_hash(pixels),
        "pixel_std": pixel_std(pixels),
        "seconds": 0.1,
    }


def pixel_rows(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[tuple[int, bytes]]:
    """Labels and pixels, to compare sets of images in any order."""
    return [(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)]
