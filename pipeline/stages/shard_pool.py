"""The Ray graph of a generation: shard numbers through a pool of actors."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from typing import Any

import ray.data

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import ShardSummary
from pipeline.core.recipe import Recipe
from pipeline.stages.data_context import leave_words_to_us
from pipeline.stages.pool_watch import watched_rows
from pipeline.stages.shard_actor import ShardActor


def finished_shards(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    parts: list[dict[str, Any]],
    shards: list[int],
    pulse: Any,
    worker: Mapping[str, Any],
) -> Generator[tuple[ShardSummary, bool], None, None]:
    """Each shard's summary and whether it was made here, as they are published. Close it: that ends the pool.

    Args:
        config: of the run.
        recipe: of the set.
        store: the storage root.
        parts: of the prompt table's manifest.
        shards: to be made.
        pulse: handle of the `Pulse` actor that the pool talks to.
        worker: `replace` and `make_maker` of `ShardActor`.

    Raises:
        InputError: the first worker's reason, when the user can mend it.
        WorkError: every other reason, or the pool gets nothing done: see `pool_watch.watched`.
    """
    settings = config.generate
    leave_words_to_us()
    ray.data.DataContext.get_current().max_errored_blocks = 0
    results = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map_batches(
        ShardActor,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            min_size=min(settings.num_actors, len(shards)),
            max_size=settings.largest_pool(len(shards)),
            max_concurrent_calls_per_actor=settings.shards_in_flight,
            enable_true_multi_threading=settings.shards_in_flight > 1,
        ),
        num_cpus=settings.num_cpus_per_actor,
        num_gpus=settings.num_gpus_per_actor,
        fn_constructor_kwargs={
            "config": config,
            "store": store,
            "prompts_dir": recipe.prompts_dir,
            "parts": parts,
            "images_dir": recipe.images_dir,
            "pulse": pulse,
            "recipe": recipe,
            **worker,
        },
    )
    needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}
    with watched_rows(results, pulse, needs, settings.stall_timeout_s) as rows:
        for row in rows:
            if row["error"]:
                raise (InputError if row["is_input"] else WorkError)(row["error"])
            yield ShardSummary(**json.loads(row["summary"])), bool(row["made"])
