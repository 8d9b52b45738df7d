"""How fast the engine draws on one device, and what each of its options gains: random weights, real architecture."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

from pipeline.core.config import EngineConfig, ModelConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine, device_name
from pipeline.core.errors import InputError, WorkError, named_line
from pipeline.core.random_sd import SHAPES, flops_per_image, write_random_model

PROMPT = "tench, cyprinid, freshwater game fish with large scales"
MATMUL_SIZE = {"cuda": 8192, "cpu": 1024}
MATMUL_S = 1.0
"""Seconds of matrix products that the achievable rate is the best of."""

PLAIN = "plain pipeline"
"""The peer: diffusers' own pipeline, called as its documentation says."""

BARE = "none"
"""The engine without options: what each option is held against."""

ONE_AT_A_TIME: dict[str, EngineConfig] = {
    BARE: EngineConfig(),
    "channels_last": EngineConfig(channels_last=True),
    "fuse_qkv": EngineConfig(fuse_qkv=True),
    "attention=flash": EngineConfig(attention="flash"),
    "attention=cudnn": EngineConfig(attention="cudnn"),
    "compile": EngineConfig(compile=True),
    "compile, channels_last": EngineConfig(compile=True, channels_last=True),
    "compile, channels_last, fuse_qkv": EngineConfig(compile=True, channels_last=True, fuse_qkv=True),
    "channels_last, attention=cudnn": EngineConfig(channels_last=True, attention="cudnn"),
    "compile, channels_last, attention=cudnn": EngineConfig(compile=True, channels_last=True, attention="cudnn"),
}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Args:
        shape: a name in `pipeline.core.random_sd.SHAPES`.
        device: "cpu" or "cuda".
        dtypes: of weights and activations, as in a recipe; each is measured with every option.
        num_inference_steps: denoising steps.
        batch_size: of the comparison of options.
        batch_sizes: to try with the fastest options of each dtype.
        options: names in `ONE_AT_A_TIME`; `none` is always measured, first.
        repeats: timed calls of each variant; one more warms it up.
    """

    shape: str
    device: str
    dtypes: Sequence[str]
    num_inference_steps: int
    batch_size: int
    batch_sizes: Sequence[int]
    options: Sequence[str]
    repeats: int


def bench_gpu(plan: Plan, directory: Path) -> Iterator[dict[str, Any]]:
    """Measure one variant after the other.

    Args:
        plan: what to measure.
        directory: an empty one, for the model (2 GB at v1.4's shape in bfloat16).

    Yields:
        A record for each variant, all with `device`, the card's name, and `dtype`: `variant`, `batch_size`,
        `images_per_s` (median), `matmul_share` (useful operations over what matrix products of the same dtype reach in
        the same process), `memory_gib`; at the compared batch size `gain` over the plain pipeline and `engine_gain`
        over the engine without options; or `error`, when a kernel is not there or memory ran out. At the end one with
        `best`.

    Raises:
        InputError: there is no such device.
        WorkError: not one variant of the engine could be measured.
    """
    if plan.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda, but torch sees no GPU here; give --device cpu --shape tiny, or use a GPU node")
    about = {"device": device_name(plan.device)}
    measured: list[dict[str, Any]] = []
    for dtype in plan.dtypes:
        for record in _bench_dtype(plan, dtype, directory):
            yield {**about, "dtype": dtype, **record}
            if record["variant"] in ONE_AT_A_TIME:
                measured.append({**about, "dtype": dtype, **record})
    if not any("images_per_s" in record for record in measured):
        raise WorkError(f"none of {len(measured)} variants could be measured; the first: {measured[0]['error']}")
    yield {"best": max(measured, key=_rate)}


def _bench_dtype(plan: Plan, dtype: str, directory: Path) -> Iterator[dict[str, Any]]:
    """The records of one dtype."""
    model = write_random_model(directory / dtype, SHAPES[plan.shape], getattr(torch, dtype), plan.device)
    matmul_rate = matmul_flops_per_s(plan.device, getattr(torch, dtype))
    yield {"variant": "matmul", "tflop_per_s": matmul_rate / 1e12}
    peers = {"gain": PLAIN, "engine_gain": BARE}
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys([PLAIN, BARE, *plan.options]):
        record = found[name] = _measured(plan, dtype, model, name, plan.batch_size, matmul_rate)
        for gain, peer in peers.items():
            if name not in (PLAIN, peer) and _rate(record) and _rate(found[peer]):
                record[gain] = _rate(record) / _rate(found[peer])
        yield record
    fastest = max((name for name in found if name != PLAIN), key=lambda name: _rate(found[name]))
    if _rate(found[fastest]):
        for batch_size in plan.batch_sizes:
            if batch_size != plan.batch_size:
                yield _measured(plan, dtype, model, fastest, batch_size, matmul_rate)


def _rate(record: dict[str, Any]) -> float:
    return float(record.get("images_per_s", 0))


def matmul_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """The best rate of large square matrix products, in operations per second."""
    size = MATMUL_SIZE[device]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, deadline = float("inf"), time.perf_counter() + MATMUL_S
    while time.perf_counter() < deadline:
        best = min(best, _seconds(lambda: torch.mm(a, b), device))
    return 2 * size**3 / best


def _measured(plan: Plan, dtype: str, model: Path, name: str, batch_size: int, matmul_rate: float) -> dict[str, Any]:
    """Rate and memory of one variant, or its error: the others are worth knowing without it."""
    about = {"variant": name, "batch_size": batch_size}
    gc.collect()  # the variant before, whose parts point at each other
    torch.compiler.reset()  # its graphs too: after 8 compilations of one function torch compiles it no more
    if plan.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        draw, scheduler = _drawer(plan, dtype, model, name, batch_size)
        began = time.perf_counter()
        with torch.no_grad():
            draw()
        warm_up_s = time.perf_counter() - began
        calls = len(scheduler.timesteps)  # a hook would count them too, and compile the network once more
        seconds = statistics.median(_seconds(draw, plan.device) for _ in range(plan.repeats))
    except (RuntimeError, InputError) as error:  # no such kernel, out of memory, a failed compilation
        return {**about, "error": named_line(error)[:200]}
    useful = batch_size * flops_per_image(SHAPES[plan.shape], calls, guidance=True)
    return {
        **about,
        "images_per_s": batch_size / seconds,
        "matmul_share": useful / seconds / matmul_rate,
        "unet_calls": calls,
        "warm_up_s": warm_up_s,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if plan.device == "cuda" else None,
    }


def _drawer(plan: Plan, dtype: str, model: Path, name: str, batch_size: int) -> tuple[Callable[[], object], Any]:
    """(what draws one batch, its scheduler, whose last timesteps are the calls of the network)."""
    pixels = SHAPES[plan.shape].pixels
    prompts, seeds = [PROMPT] * batch_size, list(range(batch_size))
    if name == PLAIN:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
            model, torch_dtype=getattr(torch, dtype), safety_checker=None, requires_safety_checker=False
        ).to(plan.device)
        pipeline.set_progress_bar_config(disable=True)

        def plain() -> object:
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
            size = {"width": pixels, "height": pixels, "num_inference_steps": plan.num_inference_steps}
            return pipeline(prompts, generator=generators, guidance_scale=2.0, **size)

        return plain, pipeline.scheduler
    recipe = RecipeConfig.model_validate(
        {
            "model": ModelConfig(id=str(model)),
            "num_inference_steps": plan.num_inference_steps,
            "guidance_scale": 2.0,
            "width": pixels,
            "height": pixels,
            "dtype": dtype,
        }
    )
    engine = DiffusionEngine(model, recipe, batch_size, plan.device, ONE_AT_A_TIME[name])
    return lambda: engine.generate(prompts, seeds), engine.pipeline.scheduler


def _seconds(action: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    action()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
