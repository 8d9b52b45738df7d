"""Chosen images of a set, made again on a worker of the same kind and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import as_begun, read_identity
from pipeline.core.model_source import check_models
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.regeneration import locate
from pipeline.stages.generate import check_machine, local_cpus
from pipeline.stages.one_worker import ask_one_worker, like_an_actor
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.pulse import start_pulse
from pipeline.stages.runtime import ray_session

if TYPE_CHECKING:  # torch and diffusers, which only the worker needs
    from pipeline.core.shard_maker import OnBatch


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
        WorkError: a shard is damaged, the worker died, or no node has what it needs.
    """
    recipe = resolve_recipe(config)
    check_machine(config.generate)
    identity = read_identity(store, recipe.images_dir)
    config = as_begun(config, identity)
    wanted = locate(image_ids, recipe, store, config.generate.shard_size, config.generate.batch_size)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    with ray_session(local_cpus(config.generate)):
        about = (config, store, recipe, parts, wanted)
        result = ask_one_worker(compare_on_worker, like_an_actor(config.generate), start_pulse(), *about)
    compared: list[dict[str, Any]] = result["images"]
    return compared


def compare_on_worker(
    config: RunConfig,
    store: Store,
    recipe: Recipe,
    parts: Sequence[Mapping[str, Any]],
    wanted: Mapping[int, Sequence[int]],
    on_batch: OnBatch,
) -> dict[str, Any]:
    """Runs on the worker: load the model once, make the batches, compare."""
    from pipeline.core.regeneration import compare
    from pipeline.core.shard_maker import ShardMaker

    check_models(config.recipe, recipe.identity)
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir, on_batch, recipe)
    found = [compare(maker, store, recipe, shard, numbers) for shard, numbers in sorted(wanted.items())]
    images = [{**each.__dict__, "is_unexplained": each.is_unexplained} for comparisons in found for each in comparisons]
    return {"images": images}
