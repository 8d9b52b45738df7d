"""What the driver of a training hands to its workers. No torch in here: drivers and Ray's controllers start at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.training_images import Arrays
from pipeline.stages.run_handle import RunHandle

METRICS = "metrics.jsonl"
STREAM, REAL_STREAM = "train", "real"
"""Names of the datasets that Ray Train splits over the workers; the second one of a mixed training."""


@dataclass(frozen=True)
class Watch:
    """A search that follows a training.

    Args:
        validation: images and labels that the network is scored on after every epoch.
        validation_id: names them in the model's manifest.
        callbacks: of Ray Train (`ray.train.UserCallback`).
        lease_key: names the training's lease, so that the search may withdraw it when it ends the training's process.
    """

    validation: Arrays
    validation_id: str
    callbacks: Sequence[Any] = ()
    lease_key: str | None = None


@dataclass(frozen=True)
class WorkerJob:
    """What every worker is given.

    Args:
        config: of the run.
        store: the storage root.
        model_dir: of the model under the root.
        class_shares: of every class in the batches, float64 [classes].
        num_images: of an epoch, before incomplete batches are dropped.
        shard_size: rows of a shard of the image set; 0 when nothing is streamed.
        arrays: images and labels in Ray's object store, or None when the images are streamed.
        real_arrays: of a mixed training, the real images beside the synthetic ones; None without, or when streamed.
        run: the MLflow run.
        validation: as `arrays`, to score on after every epoch; None for no such score.
    """

    config: RunConfig
    store: Store
    model_dir: str
    class_shares: NDArray[np.float64]
    num_images: int
    shard_size: int
    arrays: ray.ObjectRef[Arrays] | None
    real_arrays: ray.ObjectRef[Arrays] | None
    run: RunHandle
    validation: ray.ObjectRef[Arrays] | None = None


def run_worker(settings: dict[str, Any]) -> dict[str, str | None]:
    """`pipeline.stages.train_worker.train_worker`, whose imports only the workers pay for."""
    from pipeline.stages.train_worker import train_worker

    return train_worker(settings)
