"""An image set for the benchmarks of training: smooth random pictures as JPEG, in shards and as a folder of files."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.identity import num_shards
from pipeline.core.image_set import claim_image_set, prefix_shards, shard_path
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.shard_maker import shard_bytes, summarize
from pipeline.stages.bench_null import ready_columns

_COARSE = 8
"""Cells of random colour along a side: a picture that JPEG makes as small as a photograph's calm parts."""
_QUALITY = 95


@dataclass(frozen=True)
class BenchSet:
    """Where the images lie.

    Args:
        config: of the run; its recipe names the set.
        recipe: of the config.
        store: with the shards.
        folder: with one sub-folder of .jpg files per class.
    """

    config: RunConfig
    recipe: Recipe
    store: Store
    folder: Path

    @property
    def shards(self) -> list[str]:
        """Paths of the shards of the prefix under the root."""
        numbers, _ = prefix_shards(self.store, self.recipe, self.config.images_per_class)
        return [shard_path(self.recipe.images_dir, number) for number in numbers]


def write_bench_set(config: RunConfig, root: Path) -> BenchSet:
    """Write the prefix of a config's image set with pictures of the recipe's size, and its images as files."""
    recipe, store, folder = resolve_recipe(config), Store.open(str(root)), root / "folder"
    claim_image_set(config, recipe, store)
    size, prompts = config.generate.shard_size, PromptRows(recipe)
    for shard in range(num_shards(len(recipe.classes), config.images_per_class, size)):
        rows = []
        for row in prompts.table(shard * size, (shard + 1) * size).to_pylist():
            data = picture(row["image_id"], config.recipe.width, config.recipe.height)
            rows.append({**row, **ready_columns(data)})
            place = folder / f"{row['class_index']:04d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{row['image_id']}.jpg").write_bytes(data)
        summary = summarize(shard, shard * size, rows, time.time())
        store.write_bytes(shard_path(recipe.images_dir, shard), shard_bytes(rows, summary))
    return BenchSet(config, recipe, store, folder)


def picture(seed: int, width: int, height: int) -> bytes:
    """A JPEG of smooth colours with some grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (_COARSE, _COARSE, 3), np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grainy = np.clip(pixels + rng.integers(-8, 9, pixels.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grainy).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
