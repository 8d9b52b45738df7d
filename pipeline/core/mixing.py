"""Real images among synthetic ones: batches with an exact share of both, and batch norms apart for the two.

Every batch is a row of equal blocks, in each the real images first. So any part of a batch that is whole blocks has the
same share, whoever takes it, and where an image lies says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.core.image_batches import ImageBatches, num_forwards
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

    def reals(self, batch_size: int) -> int:
        """Real images of a batch that is whole blocks."""
        return batch_size * self.real // self.size


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
    real = block.reals(settings.batch_size)
    for kind, needed, there in (("real", real, num_real), ("synthetic", settings.batch_size - real, num_synthetic)):
        if needed > there:
            raise InputError(
                f"a batch of train.batch_size {settings.batch_size} has {needed} {kind} images, and there are {there}; "
                "lower it, or raise images_per_class"
            )


class RealImages(Protocol):
    """One worker's real images of a mixed training, an endless row of passes, each in an order of its own."""

    def part(self, step: int, /) -> tuple[Tensor, Tensor]:
        """For the worker's part of batch number `step`, counted over all epochs: images uint8 [n, H, W, 3], labels."""


@dataclass(frozen=True)
class MemoryPasses:
    """`RealImages` from memory: a function of (seed, step), whatever the number of workers and of restarts.

    Args:
        images: uint8 [N, H, W, 3]; may be read-only shared memory.
        labels: int64 [N].
        seed: of the order.
        batch_size: real images of a global batch, a multiple of `num_workers`.
        rank: of this worker.
        num_workers: that share the data.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    seed: int
    batch_size: int
    rank: int = 0
    num_workers: int = 1

    def part(self, step: int, /) -> tuple[Tensor, Tensor]:
        """As `RealImages.part`."""
        import torch

        share, total = self.batch_size // self.num_workers, len(self.labels)
        numbers = step * self.batch_size + self.rank * share + np.arange(share)
        rows = np.empty(share, np.int64)
        for turn in np.unique(numbers // total).tolist():
            order = np.random.default_rng([self.seed, turn, _REAL]).permutation(total)
            inside = numbers // total == turn
            rows[inside] = order[numbers[inside] % total]
        return torch.from_numpy(self.images[rows]), torch.from_numpy(self.labels[rows])


@dataclass(frozen=True)
class MixedBatches:
    """`pipeline.core.image_batches.ImageBatches` of two sets of images of one size.

    An epoch is a pass over the synthetic images, less the incomplete last batch. The real ones follow in passes of
    their own, which begin and end anywhere in an epoch: every real image is used as often as any other.

    Args:
        synthetic: the worker's synthetic part of every batch.
        real: its real part.
        block: of every batch.
    """

    synthetic: ImageBatches
    real: RealImages
    block: Block

    @property
    def steps_per_epoch(self) -> int:
        """Full global batches of an epoch."""
        return self.synthetic.steps_per_epoch

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As `ImageBatches.epoch`."""
        import torch

        for step, synthetic in enumerate(self.synthetic.epoch(epoch), start=epoch * self.steps_per_epoch):
            real = self.real.part(step)
            share = len(synthetic[1]) + len(real[1])
            is_real = torch.from_numpy(self.block.is_real(share))
            images = torch.empty((share, *synthetic[0].shape[1:]), dtype=torch.uint8)
            labels = torch.empty(share, dtype=torch.int64)
            images[is_real], labels[is_real] = real
            images[~is_real], labels[~is_real] = synthetic
            yield images, labels
