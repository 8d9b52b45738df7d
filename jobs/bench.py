"""`python -m jobs.bench NAME`: benchmarks, each side by side with its peer in one run; JSON lines on stdout."""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.artifact import Store
from pipeline.core.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

    from pipeline.core.config import RunConfig


@dataclass(frozen=True)
class Measured:
    """One side of one repeat: steady-state rate (start-up left out) and the whole wall time."""

    images_per_s: float
    wall_s: float


@click.group(help=__doc__)
def main() -> None:
    """Parse the name of the benchmark."""


@main.command()
@click.option("--repeats", type=click.IntRange(min=1), default=2, show_default=True, help="Of both sides, in turn.")
@job_options
def generate(job: JobContext, repeats: int) -> None:
    """The Ray stage (encode, publish, track) against bare loops over the same engine in as many processes.

    Artifacts go to a temporary folder; --root is not written.
    """
    ratios = []
    for repeat in range(repeats):
        sides = {"bare": _bare(job.config), "ray": _ray_stage(job.config)}
        for side, measured in sides.items():
            click.echo(json.dumps({"bench": "generate", "repeat": repeat, "side": side, **measured.__dict__}))
        ratios.append(sides["ray"].images_per_s / sides["bare"].images_per_s)
    summary: dict[str, Any] = {
        "bench": "generate",
        "images": _num_images(job.config),
        "processes": job.config.generate.num_actors,
        "ray_over_bare": statistics.median(ratios),
        "ratios": ratios,
    }
    job.finish(f"the Ray stage runs at {summary['ray_over_bare']:.3f} of the bare loops (median of {repeats})", summary)


def _num_images(config: RunConfig) -> int:
    from pipeline.core.identity import num_rows
    from pipeline.core.recipe import resolve_recipe

    return num_rows(len(resolve_recipe(config).classes), config.images_per_class, config.generate.shard_size)


def _ray_stage(config: RunConfig) -> Measured:
    from pipeline.core.image_set import read_summaries, shard_path
    from pipeline.stages.generate import generate as run_stage

    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        began = time.perf_counter()
        store = Store.open(root)
        summary = run_stage(config, store)
        wall_s = time.perf_counter() - began
        shards = range(summary["shards"])
        started = min(made.started for made in read_summaries(store, summary["images_dir"], shards))
        # When the last shard lay there: the manifest's `seconds` leaves out publishing and moments without an actor.
        stopped = max(Path(store.uri(shard_path(summary["images_dir"], shard))).stat().st_mtime for shard in shards)
        return Measured(summary["rows"] / (stopped - started), wall_s)


def _bare(config: RunConfig) -> Measured:
    """Every process makes its share of the same rows; the clock starts when all have loaded the model."""
    from pipeline.core.recipe import resolve_recipe
    from pipeline.stages.prompts import ensure_prompt_table

    processes = config.generate.num_actors
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        store, recipe = Store.open(root), resolve_recipe(config)
        manifest = ensure_prompt_table(config, recipe, store)
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            barrier = manager.Barrier(processes)
            shares = [
                (config, store, recipe.prompts_dir, manifest["parts"], rank, manifest["rows"], barrier)
                for rank in range(processes)
            ]
            with context.Pool(processes) as pool:
                spans = pool.starmap(_bare_loop, shares, chunksize=1)
    seconds = max(stop for _, stop in spans) - min(start for start, _ in spans)
    return Measured(manifest["rows"] / seconds, time.perf_counter() - began)


def _bare_loop(
    config: RunConfig,
    store: Store,
    prompts_dir: str,
    parts: list[dict[str, Any]],
    rank: int,
    rows: int,
    barrier: Barrier,
) -> tuple[float, float]:
    """(start, stop) of making every `num_actors`-th shard with nothing but the engine."""
    import torch

    from pipeline.core.shard_maker import ShardMaker

    torch.set_num_threads(config.generate.torch_threads)
    settings = config.generate
    maker = ShardMaker(config, store, prompts_dir, parts, "unused")
    barrier.wait()
    started = time.time()
    for shard in range(rank, rows // settings.shard_size, settings.num_actors):
        prompts = maker.prompt_rows(shard)
        for first in range(0, len(prompts), settings.batch_size):
            batch = prompts[first : first + settings.batch_size]
            maker.engine.generate([row["prompt"] for row in batch], [row["seed"] for row in batch])
    return started, time.time()


@main.command()
@click.option("--shape", type=click.Choice(["sd14", "tiny"]), default="sd14", show_default=True, help="Architecture.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Where.")
@click.option("--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16", show_default=True)
@click.option("--num-inference-steps", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="To compare options at.")
@click.option(
    "--try-batch-size", type=click.IntRange(min=1), multiple=True, help="With the fastest options; repeatable."
)
@click.option("--option", "options", multiple=True, help="Engine options to measure; repeatable. Default: all.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Timed calls of each.")
def gpu(
    shape: str,
    device: str,
    dtype: str,
    num_inference_steps: int,
    batch_size: int,
    try_batch_size: tuple[int, ...],
    options: tuple[str, ...],
    repeats: int,
) -> None:
    """Stable Diffusion's architecture with random weights: each engine option beside diffusers' plain pipeline."""
    from pipeline.core.bench_gpu import ONE_AT_A_TIME, Plan, bench_gpu

    unknown = [name for name in options if name not in ONE_AT_A_TIME]
    if unknown:
        raise InputError(f"--option {unknown[0]!r} is unknown; give one of: {'; '.join(ONE_AT_A_TIME)}")
    names = options or tuple(ONE_AT_A_TIME)
    plan = Plan(shape, device, dtype, num_inference_steps, batch_size, try_batch_size, names, repeats)
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as directory:
        for record in bench_gpu(plan, Path(directory)):
            click.echo(json.dumps({"bench": "gpu", **record}))


if __name__ == "__main__":
    run_job(main)
