"""Finished image sets for tests of what comes after: by a bare loop, without the seconds that a pool takes to start."""

from __future__ import annotations

from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.extra_counts import ExtraImages, counts_by_class
from pipeline.core.extra_shards import extra_shards
from pipeline.core.identity import num_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.extra_images import generate_extras
from pipeline.stages.generate import generate
from tests.faults.undisturbed import make_undisturbed


def make_set(config: RunConfig, store: Store) -> None:
    """A finished set without the seconds that a pool of actors takes: its shards by the bare loop, then the stage."""
    size = len(resolve_recipe(config).classes)
    make_undisturbed(config, store, range(num_shards(size, config.images_per_class, config.generate.shard_size)))
    assert generate(config, store)["images_made"] == 0


def make_extras(config: RunConfig, store: Store, extra: ExtraImages) -> dict[str, Any]:
    """The same for extra images of such a set: what the stage says of them."""
    counts = counts_by_class(extra, resolve_recipe(config).classes).tolist()
    make_undisturbed(config, store, extra_shards(counts, config.generate.batch_size))
    said = generate_extras(config, store, extra)
    assert said["images_made"] == 0
    return said
