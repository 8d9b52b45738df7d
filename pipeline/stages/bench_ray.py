"""The sides on Ray: our whole stage, and the way that Ray's documentation predicts batches of Stable Diffusion."""

from __future__ import annotations

import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import ray.data

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.model_source import local_model_dir
from pipeline.stages.bench_sides import Measured, all_batches, call_pipeline, working_time
from pipeline.stages.generate import generate


def run_stage(config: RunConfig) -> Measured:
    """`pipeline.stages.generate`: prompt table, pool, encoding, shards, ledger, tracking, manifest."""
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        began = time.perf_counter()
        store = Store.open(root)
        summary = generate(config, store)
        wall_s = time.perf_counter() - began
        started, stopped = working_time(store, summary["images_dir"], range(summary["shards"]))
    return Measured(summary["rows"] / (stopped - started), wall_s)


def run_ray_docs_way(config: RunConfig) -> Measured:
    """An actor class that loads the pipeline in `__init__` and is mapped over batches; images go to `write_images`.

    Same model, prompts, batch size, steps, guidance, actors and threads, and the same format of the files. What it does
    not do: a seed per row (an image cannot be made again), resume, bad rows kept as rows, checksums, counts, tracking,
    atomic writes. Nothing is added to slow it down; its images are written by Ray Data's own tasks beside the actors.
    """
    settings, recipe = config.generate, config.recipe
    rows = [{"prompt": prompt} for shard in all_batches(config) for prompts, _ in shard for prompt in prompts]
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        began = time.perf_counter()
        images, starts = Path(root) / "images", Path(root) / "starts"
        starts.mkdir()
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.from_items(rows).map_batches(
            DocsPredictor,
            batch_size=settings.batch_size,
            compute=ray.data.ActorPoolStrategy(size=settings.num_actors),
            num_cpus=settings.num_cpus_per_actor,
            num_gpus=settings.num_gpus_per_actor,
            fn_constructor_kwargs={"config": config, "starts": starts},
        ).write_images(str(images), column="image", file_format=recipe.image_format)
        wall_s = time.perf_counter() - began
        started = min(path.stat().st_mtime for path in starts.iterdir())
        files = [path.stat().st_mtime for path in images.iterdir()]
    assert len(files) == len(rows), (len(files), len(rows))
    return Measured(len(files) / (max(files) - started), wall_s)


class DocsPredictor:
    """Prompts in, arrays uint8 [H, W, 3] out. Leaves a file in `starts` when it begins its first batch."""

    def __init__(self, config: RunConfig, starts: Path) -> None:
        import torch

        from pipeline.core.pipeline_loading import load_pipeline

        torch.set_num_threads(config.generate.torch_threads)
        self._recipe = config.recipe
        self._pipeline = load_pipeline(local_model_dir(config.recipe.model), config.recipe).to(config.generate.device)
        self._start: Path | None = starts / uuid.uuid4().hex

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with a column `image`."""
        if self._start is not None:
            self._start.touch()
            self._start = None
        images = call_pipeline(self._pipeline, self._recipe, list(batch["prompt"]), None)
        return {**batch, "image": np.stack([np.asarray(image) for image in images])}
