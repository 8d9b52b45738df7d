"""Before a pool is paid for: one worker loads the model, makes and encodes one image and writes to the storage."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import ray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.recipe import Recipe
from pipeline.core.schema import FAILED
from pipeline.stages.pulse import watched
from pipeline.stages.shard_actor import describe

PROBE = "preflight.json"
"""Always the same name, written over: a storage that allows no deletes is not left with many of them."""


def check_storage(store: Store, images_dir: str) -> None:
    """Write a small file as shards are written (temporary name, rename). Raises `WorkError` when that fails."""
    store.write_json(f"{images_dir}/{PROBE}", {"written_at": time.time()})


def is_wanted(config: RunConfig) -> bool:
    """Whether a worker is to try one image first: on a cluster, where nodes for a pool that must fail cost money.

    On one machine the pool's own first image says the same, without loading the model once more.
    """
    return config.generate.preflight == "always" or (
        config.generate.preflight == "auto" and "RAY_ADDRESS" in os.environ
    )


def preflight(
    config: RunConfig, recipe: Recipe, store: Store, parts: Sequence[Mapping[str, Any]], pulse: Any
) -> dict[str, float]:
    """Make the set's first image on one worker with the resources of the pool's actors; publish nothing of it.

    Args:
        config: of the run.
        recipe: of the set.
        store: the storage root, tried from the worker.
        parts: of the prompt table's manifest.
        pulse: handle of the `Pulse` actor that tells a slow start from none.

    Returns:
        Seconds of the parts: load, image, write.

    Raises:
        InputError: model or device are wrong.
        WorkError: the image cannot be made, the storage cannot be written, or no node has what an actor needs.
    """
    settings = config.generate
    needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}

    def answers() -> Iterator[dict[str, Any]]:
        task = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"])(_try_one_image)
        yield ray.get(task.remote(config, recipe.prompts_dir, recipe.images_dir, store, parts, pulse))

    (answer,) = watched(answers(), pulse, needs, settings.stall_timeout_s)
    if answer["error"]:
        kind = InputError if answer["is_input"] else WorkError
        raise kind(f"{answer['error']} (found by the preflight; no pool was started)")
    seconds: dict[str, float] = answer["seconds"]
    return seconds


def _try_one_image(
    config: RunConfig,
    prompts_dir: str,
    images_dir: str,
    store: Store,
    parts: Sequence[Mapping[str, Any]],
    pulse: Any,
) -> dict[str, Any]:
    """Runs on the worker. An error is an answer: Ray would wrap it in several layers."""
    pulse.beat.remote("starting")
    from pipeline.core.shard_maker import ShardMaker

    try:
        times = [time.perf_counter()]
        maker = ShardMaker(config, store, prompts_dir, parts, images_dir, pulse.beat.remote)
        times.append(time.perf_counter())
        row = maker.rows(0, [0])[0]
        times.append(time.perf_counter())
        check_storage(store, images_dir)
        times.append(time.perf_counter())
    except Exception as error:  # noqa: BLE001 - whatever it is, the driver must hear it as it is
        return {"error": describe(error), "is_input": isinstance(error, InputError)}
    seconds = dict(zip(("load", "image", "write"), (b - a for a, b in pairwise(times)), strict=True))
    reason = f"the first image cannot be made: {row['reason']}" if row["status"] == FAILED else ""
    return {"error": reason, "is_input": False, "seconds": seconds}
