"""The sides without Ray: in as many processes as the pool has actors, our engine, or the diffusers pipeline itself."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from threading import BrokenBarrierError
from typing import TYPE_CHECKING

from pipeline.core.config import RunConfig
from pipeline.core.machine import end_with_parent
from pipeline.core.model_source import local_model_dir
from pipeline.stages.bench_sides import Batch, Measured, all_batches, call_pipeline

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

Draw = Callable[[list[str], list[int]], dict[str, float]]
"""Makes one image per prompt and seed; seconds of its parts where they are known."""
Span = tuple[float, float, dict[str, float]]
"""Start and stop, seconds since 1970, and seconds of the parts; `cpu` is CPU seconds of the whole."""
LOAD_TIMEOUT_S = 600.0

_barrier: Barrier | None = None  # of this worker process: a barrier can be inherited, not sent


def run_bare_loop(config: RunConfig) -> Measured:
    """Our engine and nothing around it: no Ray, no encoding, nothing is written."""
    return _in_processes(config, _engine)


def run_pipeline_call(config: RunConfig) -> Measured:
    """`pipeline(prompt=[…], generator=[…])` as a user of diffusers writes it: same batches, seeds and threads.

    Every prompt of every batch is encoded anew, and images come as PIL, which is the pipeline's default.
    """
    return _in_processes(config, _pipeline_call)


def _engine(config: RunConfig) -> Draw:
    from pipeline.core.diffusion import DiffusionEngine

    settings = config.generate
    engine = DiffusionEngine(
        local_model_dir(config.recipe.model), config.recipe, settings.batch_size, settings.device, settings.engine
    )

    def draw(prompts: list[str], seeds: list[int]) -> dict[str, float]:
        engine.generate(prompts, seeds)
        return engine.seconds

    return draw


def _pipeline_call(config: RunConfig) -> Draw:
    import torch

    from pipeline.core.pipeline_loading import load_pipeline

    recipe = config.recipe
    pipeline = load_pipeline(local_model_dir(recipe.model), recipe).to(config.generate.device)

    def draw(prompts: list[str], seeds: list[int]) -> dict[str, float]:
        call_pipeline(pipeline, recipe, prompts, [torch.Generator("cpu").manual_seed(seed) for seed in seeds])
        return {}

    return draw


def _in_processes(config: RunConfig, load: Callable[[RunConfig], Draw]) -> Measured:
    """Every process makes its share of the shards; the clock starts when all have loaded the model."""
    shards = all_batches(config)
    count = config.generate.num_actors
    shares = [[batch for shard in shards[rank::count] for batch in shard] for rank in range(count)]
    began = time.perf_counter()
    # Fresh processes for every side, so that none finds the other's caches; the libraries are imported only once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.core.diffusion"])
    with context.Pool(count, initializer=_inherit, initargs=(context.Barrier(count),)) as pool:
        answers = [pool.apply_async(_share, (config, load, batches)) for batches in shares]
        spans: list[Span] = []
        for answer in answers:
            with suppress(BrokenBarrierError):  # the one that broke it raises the reason
                spans.append(answer.get())
    seconds = max(stop for _, stop, _ in spans) - min(start for start, _, _ in spans)
    images = sum(len(prompts) for batches in shares for prompts, _ in batches)
    parts: Counter[str] = Counter()
    for _, _, span_parts in spans:
        parts.update(span_parts)
    return Measured(images / seconds, time.perf_counter() - began, {"seconds": dict(parts)})


def _inherit(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - the only way from a pool's initializer to its tasks
    _barrier = barrier
    end_with_parent()


def _share(config: RunConfig, load: Callable[[RunConfig], Draw], batches: list[Batch]) -> Span:
    """Runs in its own process: load, wait for the others, make all batches."""
    import torch

    assert _barrier is not None
    torch.set_num_threads(config.generate.torch_threads)
    parts: Counter[str] = Counter()
    try:
        draw = load(config)
    except Exception:
        _barrier.abort()
        raise
    _barrier.wait(LOAD_TIMEOUT_S)
    started = time.time()
    cpu_s = time.process_time()
    for prompts, seeds in batches:
        parts.update(draw(prompts, seeds))
    # CPU seconds say more than the clock on a machine that does other work too.
    return started, time.time(), {**parts, "cpu": time.process_time() - cpu_s}
