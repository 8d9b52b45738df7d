"""What every side of a benchmark of generation answers with, and the work that they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RecipeConfig, RunConfig
from pipeline.core.identity import num_rows
from pipeline.core.image_set import read_summaries, shard_path
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import resolve_recipe

Batch = tuple[list[str], list[int]]
"""Prompts and seeds of one engine call."""


@dataclass(frozen=True)
class Measured:
    """One side of one repeat.

    Args:
        images_per_s: over the time in which at least one image was in the making; loading of models is not in it.
        wall_s: of everything, loading included.
        besides: what else is known of it; JSON-able.
    """

    images_per_s: float
    wall_s: float
    besides: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """One flat object."""
        return {"images_per_s": self.images_per_s, "wall_s": self.wall_s, **self.besides}


def all_batches(config: RunConfig) -> list[list[Batch]]:
    """The batches of every shard that the stage would make, with the same prompts and seeds."""
    recipe, settings = resolve_recipe(config), config.generate
    rows = num_rows(len(recipe.classes), config.images_per_class, settings.shard_size)
    table = PromptRows(recipe).table(0, rows)
    prompts, seeds = table["prompt"].to_pylist(), table["seed"].to_pylist()
    return [
        [
            (
                prompts[first : min(first + settings.batch_size, stop)],
                seeds[first : min(first + settings.batch_size, stop)],
            )
            for first in range(stop - settings.shard_size, stop, settings.batch_size)
        ]
        for stop in range(settings.shard_size, rows + 1, settings.shard_size)
    ]


def call_pipeline(pipeline: Any, recipe: RecipeConfig, prompts: list[str], generators: list[Any] | None) -> list[Any]:
    """A diffusers pipeline as its users call it: PIL images, of noise by `generators` or by chance."""
    images: list[Any] = pipeline(
        prompt=prompts,
        negative_prompt=[recipe.negative_prompt] * len(prompts) if recipe.negative_prompt else None,
        generator=generators,
        num_inference_steps=recipe.num_inference_steps,
        guidance_scale=recipe.guidance_scale,
        width=recipe.width,
        height=recipe.height,
    ).images
    return images


def working_time(store: Store, images_dir: str, shards: Iterable[int]) -> tuple[float, float]:
    """(when the first of the shards was begun, when the last one lay there), seconds since 1970; a local store.

    The manifest's `seconds` leaves out publishing and moments without an actor.
    """
    numbers = list(shards)
    started = min(made.started for made in read_summaries(store, images_dir, numbers))
    return started, max(Path(store.uri(shard_path(images_dir, shard))).stat().st_mtime for shard in numbers)
