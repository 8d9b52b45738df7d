"""A stream of shards that loses a worker in the middle of an epoch: none of its images is skipped or given twice."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.train.torch
from numpy.typing import NDArray

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.stages.image_streams import StreamBatches
from pipeline.stages.ingest import open_training_data
from pipeline.stages.worker_job import STREAM
from tests.image_sets import pixel_rows, small_config, write_image_set

EPOCHS = 3
IMAGES, SHARE = 90, 15


def names(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[str]:
    """Label and sha256 of the pixels of every image."""
    return [f"{label} {sha256_bytes(pixels)}" for label, pixels in pixel_rows(images, labels)]


def note_rows(settings: dict[str, Any]) -> None:
    """A worker that trains nothing: every epoch's rows into a file, a checkpoint behind it, one death by SIGKILL."""
    folder, rank = Path(settings["folder"]), ray.train.get_context().get_world_rank()
    checkpoint = ray.train.get_checkpoint()
    with tempfile.TemporaryDirectory() as empty:
        done = 0 if checkpoint is None else int(checkpoint.get_metadata()["done"])
        batches = StreamBatches(ray.train.get_dataset_shard(STREAM), IMAGES // (2 * SHARE), SHARE, 20, seed=0)
        for epoch in range(done, EPOCHS):
            rows: list[str] = []
            for step, (images, labels) in enumerate(batches.epoch(epoch)):
                rows += names(images.numpy(), labels.numpy())
                if (epoch, step, rank) == (1, 1, 1) and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
            (folder / f"{epoch}-{rank}.json").write_text(json.dumps(rows))
            kept = ray.train.Checkpoint.from_directory(empty)
            kept.set_metadata({"done": epoch + 1})
            ray.train.report({}, kept if rank == 0 else None)


@pytest.mark.faults
def test_after_a_loss_every_epoch_has_each_image_once(ray_cluster: None, tmp_path: Path) -> None:
    config = small_config(images_per_class=9, shard_size=20, ingest="stream")
    store = Store.open(str(tmp_path / "runs"))
    recipe = write_image_set(config, store)
    in_memory = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "memory"})})
    held = open_training_data(in_memory, recipe, store).arrays
    assert held is not None
    ray.train.torch.TorchTrainer(
        note_rows,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(
            storage_path=str(tmp_path / "train"), failure_config=ray.train.FailureConfig(max_failures=1)
        ),
        datasets={STREAM: open_training_data(config, recipe, store).stream(store, config)},
    ).fit()
    assert (tmp_path / "killed").exists()
    for epoch in range(EPOCHS):
        seen = [row for rank in range(2) for row in json.loads((tmp_path / f"{epoch}-{rank}.json").read_text())]
        assert sorted(seen) == sorted(names(*held)) and len(set(seen)) == IMAGES
