"""Image sets that many ask for: what is there is used, what is missing is made by one of them, and what that saved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.identity import num_shards
from pipeline.core.image_set import ShardSummary, each_summary, prefix_shards, published_shards
from pipeline.core.lease import lease
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.stages.generate import generate


def ensure_images(config: RunConfig, store: Store) -> None:
    """Wait until the images of a config are there; make them when nobody else does.

    Raises:
        InputError: as `generate`.
        WorkError: as `generate`; whoever waits tries next.
    """
    recipe = resolve_recipe(config)
    if is_there(config, recipe, store):
        return
    with lease(store, f"{recipe.images_dir}/lease", until=lambda: is_there(config, recipe, store)) as held:
        if held:
            generate(config, store)


def is_there(config: RunConfig, recipe: Recipe, store: Store) -> bool:
    """Whether every shard of a config's images is published, and the manifest says so."""
    path = f"{recipe.images_dir}/{MANIFEST}"
    if not store.exists(path) or store.read_json(path)["images_per_class"] < config.images_per_class:
        return False
    wanted = num_shards(len(recipe.classes), config.images_per_class, config.generate.shard_size)
    return published_shards(store, recipe.images_dir).issuperset(range(wanted))


def image_summaries(config: RunConfig, recipe: Recipe, store: Store) -> list[ShardSummary]:
    """What the footers of a config's images say."""
    shards, _ = prefix_shards(store, recipe, config.images_per_class)
    return list(each_summary(store, recipe.images_dir, shards))


def device_seconds(config: RunConfig, summaries: Iterable[ShardSummary]) -> float:
    """Device time in the making of shards: GPU seconds, or seconds of an actor on a CPU."""
    share = config.generate.num_gpus_per_actor or 1.0
    return share * sum(summary.actor_s for summary in summaries)


@dataclass
class ImageBill:
    """Images that runs asked for against images that were made for them."""

    since: float
    """Seconds since 1970; what was begun later was made for these runs."""
    asked: int = 0
    asked_device_s: float = 0.0

    def __post_init__(self) -> None:
        self._made: dict[tuple[str, int], tuple[int, float]] = {}

    def add(self, config: RunConfig, store: Store) -> None:
        """Count the images of one run; a set that is not there counts nothing."""
        recipe = resolve_recipe(config)
        if not is_there(config, recipe, store):
            return
        summaries = image_summaries(config, recipe, store)
        self.asked += sum(summary.rows for summary in summaries)
        self.asked_device_s += device_seconds(config, summaries)
        for summary in summaries:
            if summary.started >= self.since:
                self._made[recipe.id, summary.shard] = (summary.rows, device_seconds(config, [summary]))

    def facts(self) -> dict[str, Any]:
        """Images asked for, made and reused, and device seconds spent and saved; JSON-able."""
        made = sum(rows for rows, _ in self._made.values())
        spent = sum(seconds for _, seconds in self._made.values())
        return {
            "images_asked": self.asked,
            "images_made": made,
            "images_reused": self.asked - made,
            "image_device_s_spent": spent,
            "image_device_s_saved": self.asked_device_s - spent,
        }
