"""Chosen images of a set, made again on a worker of the same kind and compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import as_begun, read_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.regeneration import locate
from pipeline.stages.generate import check_machine
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.runtime import ray_session


def regenerate(config: RunConfig, store: Store, image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Make images again and compare them with the stored ones. Nothing is written to the set.

    Args:
        config: of the run; its recipe names the set, `generate` the kind of worker.
        store: the storage root.
        image_ids: of the images.

    Returns:
        The fields of `pipeline.core.regeneration.Comparison` for each image, by shard, with `is_unexplained`.

    Raises:
        InputError: there is no such set or image, or the model or the device is wrong.
        WorkError: a shard is damaged.
    """
    recipe = resolve_recipe(config)
    check_machine(config.generate)
    identity = read_identity(store, recipe.images_dir)
    config = as_begun(config, identity)
    wanted = locate(image_ids, recipe, store, config.generate.shard_size)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    settings = config.generate
    needed = max(4, os.cpu_count() or 1, int(settings.num_cpus_per_actor + 0.999))
    with ray_session(num_cpus=needed):
        remote = ray.remote(num_cpus=settings.num_cpus_per_actor, num_gpus=settings.num_gpus_per_actor, max_retries=0)(
            compare_on_worker
        )
        try:
            result: list[dict[str, Any]] = ray.get(remote.remote(config, store, recipe, parts, wanted))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
    return result


def compare_on_worker(
    config: RunConfig,
    store: Store,
    recipe: Recipe,
    parts: Sequence[Mapping[str, Any]],
    wanted: Mapping[int, Sequence[int]],
) -> list[dict[str, Any]]:
    """The Ray task: load the model once, make the batches, compare."""
    from pipeline.core.regeneration import compare
    from pipeline.core.shard_maker import ShardMaker

    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir)
    found = [compare(maker, store, recipe, shard, numbers) for shard, numbers in sorted(wanted.items())]
    return [{**each.__dict__, "is_unexplained": each.is_unexplained} for comparisons in found for each in comparisons]
