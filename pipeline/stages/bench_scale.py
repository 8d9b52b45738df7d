"""The whole stage around a maker of ready images: many rows, a resume of them, and many shards in flight."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import ShardSummary, published_shards, read_summaries, shard_path
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.stages.bench_driver import DriverSampler, Sample, between
from pipeline.stages.bench_null import NullMakers
from pipeline.stages.bench_sides import working_time
from pipeline.stages.generate import generate, publish_manifest

ROW_BYTES = 600
"""Of a row beside its image, in the shard and in the prompt table; rounded up."""
LOST_SHARDS = 4
"""That the resume has to make again."""


@dataclass(frozen=True)
class InFlight:
    """A load of many shards at a time.

    Args:
        shards: in flight.
        actors: that hold them, `shards / actors` each.
        shards_per_s: that are finished.
        seconds: that this is held up.
    """

    shards: int
    actors: int
    shards_per_s: float
    seconds: float


def run_rows(config: RunConfig, rows: int, shard_rows: int, image_bytes: int, sample_s: float) -> dict[str, Any]:
    """Publish a set, take its last shards away and go on with it.

    Returns:
        Rows and files, rows/s and MB/s, the driver's CPU and memory, seconds of ledger, manifest and resume; JSON-able.

    Raises:
        InputError: the temporary folder has no room.
        WorkError: the run was too short for two samples.
    """
    config = _sized(config, rows, shard_rows)
    makers = NullMakers(image_bytes)
    with _temporary_root(rows * (image_bytes + ROW_BYTES)) as (root, store):
        recipe = resolve_recipe(config)
        began = time.perf_counter()
        with DriverSampler(partial(_count_done, store, recipe), sample_s) as sampler:
            manifest = generate(config, store, make_maker=makers)
        wall_s = time.perf_counter() - began
        shards = range(manifest["shards"])
        started, stopped = working_time(store, recipe.images_dir, shards)
        files = [path.stat().st_size for path in root.rglob("*") if path.is_file()]
        measured = {
            "rows": manifest["rows"],
            "shards": manifest["shards"],
            "files": len(files),
            "gigabytes": sum(files) / 1e9,
            "wall_s": wall_s,
            "rows_per_s": manifest["rows"] / (stopped - started),
            **_driver(sampler.samples, max(1, len(shards) // 10), len(shards)),
            "private_mb_by_rows": _memory_curve(sampler.samples, len(shards), shard_rows),
            "peak_private_mb": max(sample.private_mb for sample in sampler.samples),
        }
        store.delete(f"{recipe.images_dir}/{MANIFEST}")
        measured["ledger_s"] = _seconds(partial(published_shards, store, recipe.images_dir))
        measured["manifest_s"] = _seconds(partial(publish_manifest, config, recipe, store, list(shards)))
        lost = shards[-LOST_SHARDS:]
        for shard in lost:
            store.delete(shard_path(recipe.images_dir, shard))
        asked = time.time()
        generate(config, store, make_maker=makers)
        measured["resume_first_image_s"] = working_time(store, recipe.images_dir, lost)[0] - asked
        measured["resume_wall_s"] = time.time() - asked
    return measured


def run_in_flight(config: RunConfig, load: InFlight, sample_s: float) -> dict[str, Any]:
    """Hold many shards in flight on few actors of many threads that sleep; the driver's side is the real one.

    Returns:
        Shards in flight and finished per second as they were, and the driver's CPU; JSON-able.

    Raises:
        WorkError: the run was too short for two samples.
    """
    shard_rows = 256
    shard_s = load.shards / load.shards_per_s
    total = load.shards + math.ceil(load.shards_per_s * load.seconds)
    sized = _sized(config, total * shard_rows, shard_rows)
    pool = {
        "num_actors": load.actors,
        "num_cpus_per_actor": 0.01,
        # More than the config allows: one thread stands for one worker here, since a process each would not fit.
        "shards_in_flight": math.ceil(load.shards / load.actors),
    }
    sized = sized.model_copy(update={"generate": sized.generate.model_copy(update=pool)})
    # Inherited by Ray's workers: glibc would keep an arena for each of an actor's threads, 10 MB of footers in each.
    os.environ["MALLOC_ARENA_MAX"] = "1"
    makers = NullMakers(3_000, shard_s, load.shards)
    with _temporary_root(total * shard_rows * (3_000 + ROW_BYTES)) as (_, store):
        recipe = resolve_recipe(sized)
        with DriverSampler(partial(_count_done, store, recipe), sample_s) as sampler:
            total = generate(sized, store, make_maker=makers)["shards"]
        # From when the start is over until no shard is left to be handed out.
        last = total - load.shards
        first = max(1, last // 10)
        start, stop = _window(sampler.samples, first, last)
        summaries = read_summaries(store, recipe.images_dir, range(total))
    return {
        "actors": load.actors,
        "shards": total,
        "seconds": stop.at_s - start.at_s,
        "in_flight": mean_in_flight(summaries, start.at_s, stop.at_s),
        "shards_per_s": (stop.done - start.done) / (stop.at_s - start.at_s),
        **_driver(sampler.samples, first, last),
    }


def _sized(config: RunConfig, rows: int, shard_rows: int) -> RunConfig:
    """The config with this many rows (rounded up to whole shards) of shards of this size."""
    classes = len(resolve_recipe(config).classes)
    settings = {"shard_size": shard_rows, "batch_size": shard_rows}
    return config.model_copy(
        update={
            "images_per_class": math.ceil(rows / classes),
            "generate": config.generate.model_copy(update=settings),
        }
    )


@contextmanager
def _temporary_root(num_bytes: float) -> Iterator[tuple[Path, Store]]:
    """A folder that is removed afterwards. Raises `InputError` when its disk has not `num_bytes` and a tenth more."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.1 * num_bytes:
        raise InputError(
            f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB free, {1.1 * num_bytes / 1e9:.1f} GB are needed; give "
            "fewer --rows or smaller --image-bytes, or point TMPDIR to another disk"
        )
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        yield Path(root), Store.open(root)


def _count_done(store: Store, recipe: Recipe) -> int:
    return len(published_shards(store, recipe.images_dir))


def _window(samples: Sequence[Sample], first_done: int, last_done: int) -> tuple[Sample, Sample]:
    try:
        return between(samples, first_done, last_done)
    except ValueError as error:
        raise WorkError(
            f"too short to be measured ({error}); give more of it, or a smaller --sample-seconds"
        ) from error


def _driver(samples: Sequence[Sample], first_done: int, last_done: int) -> dict[str, float]:
    """CPU and memory of the driver between two numbers of finished shards."""
    start, stop = _window(samples, first_done, last_done)
    seconds, shards = stop.at_s - start.at_s, stop.done - start.done
    return {
        "driver_cpu_share": (stop.cpu_s - start.cpu_s) / seconds,
        "head_cpu_share": (stop.head_cpu_s - start.head_cpu_s) / seconds,
        "driver_cpu_ms_per_shard": 1000 * (stop.cpu_s - start.cpu_s) / max(1, shards),
        "private_mb": stop.private_mb,
        "private_growth": stop.private_mb / start.private_mb - 1,
    }


def _memory_curve(samples: Sequence[Sample], shards: int, shard_rows: int) -> list[tuple[int, float]]:
    """(rows, MB) at about every tenth of the rows."""
    curve = {sample.done * 10 // shards: (sample.done * shard_rows, sample.private_mb) for sample in samples}
    return [curve[tenth] for tenth in sorted(curve)]


def mean_in_flight(summaries: Sequence[ShardSummary], start: float, stop: float) -> float:
    """Shards in the making at a time, on average over a time."""
    inside = sum(max(0.0, min(made.finished, stop) - max(made.started, start)) for made in summaries)
    return inside / (stop - start)


def _seconds(action: Any) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
