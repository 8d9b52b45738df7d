"""`python -m jobs.bench NAME`: benchmarks, each side by side with its peer in one run; JSON lines on stdout."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from pipeline.cli import FiniteRange, JobContext, job_options, job_options_with, run_job
from pipeline.core.errors import InputError

COMPARISONS = (
    "stage_over_bare_loop",
    "engine_over_pipeline_call",
    "stage_over_ray_docs_way",
    "parquet_over_bare_pyarrow",
)
TRAINING_COMPARISONS = (
    "ray_over_bare_ddp",
    "data_over_tensors",
    "stream_over_tensors",
    "loader_over_bare_decode",
    "stream_over_torchvision_script",
)


@click.group(help=__doc__)
def main() -> None:
    """Parse the name of the benchmark."""


@main.command()
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Of every side, in turn.")
@click.option("--only", multiple=True, type=click.Choice(COMPARISONS), help="Just these ratios; repeatable.")
@job_options
def generate(job: JobContext, repeats: int, only: tuple[str, ...]) -> None:
    """The Ray stage, the engine and the writing of shards, each against what a user would do without them.

    Artifacts go to a temporary folder (TMPDIR); --root is not written.
    """
    from pipeline.stages.bench_generate import compare

    summary = compare(job.config, repeats, only or COMPARISONS, _line)
    _finish(job, repeats, summary)


@main.command()
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Of every side, in turn.")
@click.option("--only", multiple=True, type=click.Choice(TRAINING_COMPARISONS), help="Just these ratios; repeatable.")
@job_options
def train(job: JobContext, repeats: int, only: tuple[str, ...]) -> None:
    """Ray Train, its data and its loader, each against bare torch, ready tensors, bare decoding and a plain script.

    Trains the preset's network on made-up pictures of the recipe's size; the first epoch is not counted. Artifacts go
    to a temporary folder (TMPDIR); --root is not written.
    """
    from pipeline.stages.bench_train import compare_training

    _finish(job, repeats, compare_training(job.config, repeats, only or TRAINING_COMPARISONS, _line))


@main.command()
@click.option("--rows", type=click.IntRange(min=0), default=1_000_000, show_default=True, help="Of the set; 0: none.")
@click.option("--shard-rows", type=click.IntRange(min=1), default=256, show_default=True, help="Of one shard.")
@click.option(
    "--image-bytes", type=click.IntRange(3_000, 60_000), default=10_000, show_default=True, help="Of an image."
)
@click.option(
    "--inflight-shards", type=click.IntRange(min=0), default=1000, show_default=True, help="At a time; 0: none."
)
@click.option("--inflight-actors", type=click.IntRange(min=1), default=20, show_default=True, help="They share them.")
@click.option("--shards-per-s", type=FiniteRange(min=0.1), default=11.0, show_default=True, help="Finished.")
@click.option("--inflight-seconds", type=FiniteRange(min=1), default=90.0, show_default=True, help="Measured.")
@click.option("--sample-seconds", type=FiniteRange(min=0.01), default=1.0, show_default=True, help="Interval.")
@job_options_with(default_preset="fashion")
def scale(
    job: JobContext,
    rows: int,
    shard_rows: int,
    image_bytes: int,
    inflight_shards: int,
    inflight_actors: int,
    shards_per_s: float,
    inflight_seconds: float,
    sample_seconds: float,
) -> None:
    """The whole Ray stage with a maker of ready images: rows/s, files, the driver's CPU and memory, resume.

    Then many shards in flight on workers that sleep. Artifacts go to a temporary folder (TMPDIR) of about rows x
    image-bytes that is removed at the end; --root is not written.
    """
    from pipeline.stages.bench_scale import InFlight, run_in_flight, run_rows

    summary: dict[str, Any] = {"bench": "scale"}
    if rows:
        summary["rows"] = run_rows(job.config, rows, shard_rows, image_bytes, sample_seconds)
        _line(summary["rows"])
    if inflight_shards:
        load = InFlight(inflight_shards, inflight_actors, shards_per_s, inflight_seconds)
        summary["in_flight"] = run_in_flight(job.config, load, sample_seconds)
        _line(summary["in_flight"])
    job.finish(f"measured: {', '.join(name for name in summary if name != 'bench') or 'nothing'}", summary)


@main.command()
@click.option("--shape", type=click.Choice(["sd14", "tiny"]), default="sd14", show_default=True, help="Architecture.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True, help="Where.")
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["bfloat16", "float16", "float32"]),
    multiple=True,
    default=["bfloat16"],
    show_default=True,
    help="Of weights and activations; repeatable.",
)
@click.option("--num-inference-steps", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="To compare options at.")
@click.option(
    "--try-batch-size",
    "batch_sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=[4, 8, 32, 64],
    show_default=True,
    help="With the fastest options; repeatable.",
)
@click.option("--option", "options", multiple=True, help="Engine options to measure; repeatable. Default: all.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True, help="Timed calls of each.")
def gpu(
    shape: str,
    device: str,
    dtypes: tuple[str, ...],
    num_inference_steps: int,
    batch_size: int,
    batch_sizes: tuple[int, ...],
    options: tuple[str, ...],
    repeats: int,
) -> None:
    """Stable Diffusion's architecture with random weights: each engine option beside diffusers' plain pipeline."""
    from pipeline.core.bench_gpu import ONE_AT_A_TIME, Plan, bench_gpu

    unknown = [name for name in options if name not in ONE_AT_A_TIME]
    if unknown:
        raise InputError(f"--option {unknown[0]!r} is unknown; give one of: {'; '.join(ONE_AT_A_TIME)}")
    names = options or tuple(ONE_AT_A_TIME)
    plan = Plan(shape, device, dtypes, num_inference_steps, batch_size, batch_sizes, names, repeats)
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as directory:
        for record in bench_gpu(plan, Path(directory)):
            _line({"bench": "gpu", **record})


def _finish(job: JobContext, repeats: int, summary: dict[str, Any]) -> None:
    named = [f"{name} {summary[name]:.3f} ({low:.3f} to {high:.3f})" for name, (low, high) in summary["spread"].items()]
    job.finish(f"median of {repeats}: {', '.join(named)}", summary)


def _line(values: dict[str, Any]) -> None:
    click.echo(json.dumps(values))


if __name__ == "__main__":
    run_job(main)
