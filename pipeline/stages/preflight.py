"""Before a pool is paid for: one worker loads the model, makes and encodes one image and writes to the storage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.model_source import check_models
from pipeline.core.recipe import Recipe
from pipeline.core.schema import BLANK, FAILED
from pipeline.core.storage_probe import check_storage
from pipeline.stages.one_worker import ask_one_worker, like_an_actor

if TYPE_CHECKING:  # torch and diffusers, which only the worker needs
    from pipeline.core.shard_maker import OnBatch


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
        WorkError: the image cannot be made, all of its batch are blank, the storage cannot be written, or no node has
            what an actor needs.
    """
    try:
        about = (config, recipe, store, parts)
        seconds: dict[str, float] = ask_one_worker(_try_one_image, like_an_actor(config.generate), pulse, *about)
    except (InputError, WorkError) as error:
        raise type(error)(f"{error} (found by the preflight; no pool was started)") from error
    return seconds


def _try_one_image(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    parts: Sequence[Mapping[str, Any]],
    on_batch: OnBatch,
) -> dict[str, float]:
    """Runs on the worker: seconds of the parts."""
    from pipeline.core.shard_maker import ShardMaker

    times = [time.perf_counter()]
    check_models(config.recipe, recipe.identity)
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir, on_batch)
    times.append(time.perf_counter())
    batch = list(maker.rows(0, [0]).values())
    times.append(time.perf_counter())
    if batch[0]["status"] == FAILED:
        raise WorkError(f"the first image cannot be made: {batch[0]['reason']}")
    # A model may draw a blank image now and then, always from the same row: one alone must not bar its set.
    if all(row["status"] == BLANK for row in batch):
        raise WorkError(
            f"all {len(batch)} images of the first batch are blank ({batch[0]['reason']}); mend recipe.model, "
            "recipe.dtype, recipe.scheduler or recipe.guidance_scale until `python -m jobs.preview` shows pictures, or "
            "give --set generate.preflight=auto to make them as they are"
        )
    check_storage(store, recipe.images_dir)
    times.append(time.perf_counter())
    return dict(zip(("load", "image", "write"), (b - a for a, b in pairwise(times)), strict=True))
