"""Generation beside its peers: what is compared with what, and how the ratios are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import num_rows
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.bench_processes import run_bare_loop, run_pipeline_call
from pipeline.stages.bench_ray import run_ray_docs_way, run_stage
from pipeline.stages.bench_sides import Measured
from pipeline.stages.bench_turns import take_ratio, turns
from pipeline.stages.bench_writes import alternate_writes
from pipeline.stages.generate import local_cpus
from pipeline.stages.runtime import ray_session

RATIOS = {
    "stage_over_bare_loop": ("stage", "bare_loop"),
    "engine_over_pipeline_call": ("bare_loop", "pipeline_call"),
    "stage_over_ray_docs_way": ("stage", "ray_docs_way"),
    "parquet_over_bare_pyarrow": ("shard_writes", "bare_pyarrow"),
}
"""Ours over the peer's rate; 1 is level, more is better."""

SIDES: dict[str, Callable[[RunConfig], Measured]] = {
    "bare_loop": run_bare_loop,
    "pipeline_call": run_pipeline_call,
    "stage": run_stage,
    "ray_docs_way": run_ray_docs_way,
}
ON_RAY = ("stage", "ray_docs_way")


def compare(
    config: RunConfig, repeats: int, wanted: Sequence[str], report: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Run every side that the wanted ratios need, in turn, `repeats` times; each second repeat in the other order.

    Args:
        config: of the run; every side makes its whole prefix of the same images.
        repeats: of every side, >= 1.
        wanted: keys of `RATIOS`.
        report: told of every finished side: repeat, side, images_per_s, wall_s and what it measured besides.

    Returns:
        The median of each wanted ratio under its name, `spread` (lowest and highest), and what was compared; JSON-able.

    Raises:
        InputError: the recipe draws the guidance of each image, which no peer can.
    """
    if not isinstance(config.recipe.guidance_scale, float):
        raise InputError("recipe.guidance_scale is drawn per image, which no peer can; give one number, e.g. 2")
    needed = {side for name in wanted for side in RATIOS[name]}
    order = [side for side in SIDES if side in needed]
    measured: dict[str, list[Measured]] = {side: [] for side in needed}

    def note(repeat: int, side: str, done: Measured) -> None:
        measured[side].append(done)
        report({"bench": "generate", "repeat": repeat, "side": side, **done.as_json()})

    for repeat, side in turns(order, dict.fromkeys(ON_RAY, local_cpus(config.generate)), repeats, ray_session):
        note(repeat, side, SIDES[side](config))
    if needed - set(order):
        for repeat in range(repeats):
            for side, done in alternate_writes(config).items():
                note(repeat, side, done)
    ratios = {name: take_ratio(*(measured[side] for side in RATIOS[name])) for name in wanted}
    settings = config.generate
    return {
        "bench": "generate",
        "images": num_rows(len(resolve_recipe(config).classes), config.images_per_class, settings.shard_size),
        "processes": settings.num_actors,
        "torch_threads": settings.torch_threads,
        "repeats": repeats,
        **{name: ratio.median for name, ratio in ratios.items()},
        "spread": {name: [ratio.lowest, ratio.highest] for name, ratio in ratios.items()},
    }
