"""Batches of training images from memory, cut so that any number of workers sees the same global batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.train_config import TrainConfig

if TYPE_CHECKING:  # torch takes seconds to import, and a driver needs only `check_batches`
    from torch import Tensor


class ImageBatches(Protocol):
    """One worker's part of the training data."""

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches of an epoch."""

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The worker's parts of an epoch's batches: images uint8 [n, H, W, 3] and labels int64 [n], on the CPU."""


def num_forwards(config: TrainConfig, num_workers: int) -> int:
    """In how many equal parts a worker's share of a batch goes through: as few as `max_batch_per_worker` allows."""
    share = config.batch_size // num_workers
    most = config.max_batch_per_worker or share
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= most)


def check_batches(config: TrainConfig, num_images: int) -> None:
    """Raises `InputError` when a global batch cannot be cut equally, or an epoch would hold none."""
    counts = range(config.min_workers or config.num_workers, config.num_workers + 1)
    if any(config.batch_size % workers for workers in counts):
        raise InputError(_cannot_share(config.batch_size, counts))
    for workers in counts:
        if config.batch_size // workers // num_forwards(config, workers) < 2:
            raise InputError(
                f"train.batch_size {config.batch_size} leaves one image to a forward of each of {workers} workers, and "
                "a batch norm needs two; change it, train.num_workers or train.max_batch_per_worker"
            )
    if config.batch_size > num_images:
        raise InputError(
            f"train.batch_size {config.batch_size} is larger than the {num_images} training images; lower it, or "
            "raise images_per_class"
        )


def _cannot_share(batch_size: int, counts: range) -> str:
    """Which of these numbers of workers have no equal shares of a batch, and what batch or which workers would do."""
    unequal = ", ".join(str(workers) for workers in counts if batch_size % workers)
    multiple = math.lcm(*counts)
    least = multiple * math.ceil(2 * counts[-1] / multiple)  # a batch norm needs two images of each worker
    nearest = max(least, multiple * round(batch_size / multiple))
    said = (
        f"train.batch_size {batch_size} cannot be shared equally by {unequal} workers; give one that can, at least "
        f"{least}, nearest {nearest}"
    )
    groups = itertools.groupby(counts, lambda workers: batch_size % workers == 0)
    runs = [list(run) for equal, run in groups if equal]
    if not runs:
        return said
    run = max(runs, key=lambda run: (len(run), run[-1]))
    return f"{said}, or train.min_workers={run[0]} and train.num_workers={run[-1]}"


@dataclass(frozen=True)
class MemoryBatches:
    """Batches of images that are all in memory, in a new order every epoch; the incomplete last batch is dropped.

    Every worker draws the same permutation from (seed, epoch) and takes its part of each global batch, so the global
    batches depend neither on the number of workers nor on where a run was interrupted.

    Args:
        images: uint8 [N, H, W, 3]; may be read-only shared memory.
        labels: int64 [N].
        seed: of the order.
        batch_size: global, a multiple of `num_workers`.
        rank: of this worker.
        num_workers: that share the data.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seed: int
    batch_size: int
    rank: int = 0
    num_workers: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches of an epoch."""
        return len(self.images) // self.batch_size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageBatches.epoch`."""
        import torch

        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))
        share = self.batch_size // self.num_workers
        for step in range(self.steps_per_epoch):
            start = step * self.batch_size + self.rank * share
            rows = order[start : start + share]
            yield torch.from_numpy(self.images[rows]), torch.from_numpy(self.labels[rows])
