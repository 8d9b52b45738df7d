"""Real images among synthetic ones: batches with an exact share of both, and batch norms apart for the two.

Every batch is a row of equal blocks, in each the real images first. So any part of a batch that is whole blocks has the
same share, whoever takes it, and where an image lies says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.image_batches import num_forwards
from pipeline.core.train_config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

MAX_BLOCK = 64
"""Images of the largest block."""
_REAL = 1  # in the seed of the real images' order, which is not that of the synthetic ones


@dataclass(frozen=True)
class Block:
    """`real` real images, then synthetic ones up to `size`."""

    real: int
    size: int

    def is_real(self, count: int) -> NDArray[np.bool_]:
        """Which of the first `count` images of a batch are real, bool [count]."""
        return np.arange(count) % self.size < self.real


def block_of(settings: TrainConfig) -> Block:
    """The smallest block with `train.real_share`. Raises `InputError` when none of up to `MAX_BLOCK` images has it."""
    share = Fraction(settings.real_share).limit_denominator(MAX_BLOCK)
    if not 0 < share < 1 or abs(float(share) - settings.real_share) > 1e-6:
        raise InputError(
            f"train.real_share {settings.real_share} is no fraction with a denominator up to {MAX_BLOCK}; give e.g. "
            "0.25, 0.5 or 0.75"
        )
    return Block(share.numerator, share.denominator)


def check_mixing(settings: TrainConfig, num_real: int, num_synthetic: int) -> None:
    """Raises `InputError` when a forward cannot have its share, or there are too few images of a kind for a batch."""
    block = block_of(settings)
    for workers in range(settings.min_workers or settings.num_workers, settings.num_workers + 1):
        forward = settings.batch_size // workers // num_forwards(settings, workers)
        if forward % block.size:
            raise InputError(
                f"train.real_share {settings.real_share} needs forwards of a multiple of {block.size} images, and "
                f"train.batch_size {settings.batch_size} gives {forward} to each of {workers} workers; change one"
            )
        blocks = forward // block.size
        if settings.separate_batch_norm and min(block.real, block.size - block.real) * blocks < 2:
            raise InputError(
                f"train.separate_batch_norm needs two images of each kind in a forward of {forward}; raise "
                "train.batch_size, or change train.real_share"
            )
    real = settings.batch_size * block.real // block.size
    for kind, needed, there in (("real", real, num_real), ("synthetic", settings.batch_size - real, num_synthetic)):
        if needed > there:
            raise InputError(
                f"a batch of train.batch_size {settings.batch_size} has {needed} {kind} images, and there are {there}; "
                "lower it, or raise images_per_class"
            )


@dataclass(frozen=True)
class MixedBatches:
    """As `pipeline.core.image_batches.MemoryBatches`, of two sets of images of one size.

    An epoch is a pass over the synthetic images, less the incomplete last batch. The real ones follow in passes of
    their own, which begin and end anywhere in an epoch: every real image is used as often as any other.

    Args:
        synthetic: images uint8 [N, H, W, 3] and labels int64 [N].
        real: likewise.
        block: of every batch.
        seed: of both orders.
        batch_size: global, a multiple of `num_workers` times the block.
        rank: of this worker.
        num_workers: that share the data.
    """

    synthetic: tuple[NDArray[np.uint8], NDArray[np.int64]]
    real: tuple[NDArray[np.uint8], NDArray[np.int64]]
    block: Block
    seed: int
    batch_size: int
    rank: int = 0
    num_workers: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches of an epoch."""
        return len(self.synthetic[1]) // (self.batch_size - self._real_per_batch)

    @property
    def _real_per_batch(self) -> int:
        return self.batch_size * self.block.real // self.block.size

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageBatches.epoch`."""
        import torch

        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.synthetic[1]))
        share = self.batch_size // self.num_workers
        is_real = self.block.is_real(share)
        num_real = int(is_real.sum())
        for step in range(self.steps_per_epoch):
            first = step * (self.batch_size - self._real_per_batch) + self.rank * (share - num_real)
            rows = order[first : first + share - num_real]
            first_real = (epoch * self.steps_per_epoch + step) * self._real_per_batch + self.rank * num_real
            real_rows = self._real_rows(first_real, num_real)
            images = np.empty((share, *self.synthetic[0].shape[1:]), np.uint8)
            labels = np.empty(share, np.int64)
            for (source, names), mask, chosen in (
                (self.synthetic, ~is_real, rows),
                (self.real, is_real, real_rows),
            ):
                images[mask], labels[mask] = source[chosen], names[chosen]
            yield torch.from_numpy(images), torch.from_numpy(labels)

    def _real_rows(self, first: int, count: int) -> NDArray[np.int64]:
        """Real images number `first` and on of the endless row of passes, each in an order of its own."""
        total = len(self.real[1])
        numbers = np.arange(first, first + count)
        rows = np.empty(count, np.int64)
        for turn in np.unique(numbers // total).tolist():
            order = np.random.default_rng([self.seed, turn, _REAL]).permutation(total)
            inside = numbers // total == turn
            rows[inside] = order[numbers[inside] % total]
        return rows
