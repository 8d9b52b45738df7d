"""Real among synthetic images: the share of every part of a batch, the order, what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.core.image_batches import MemoryBatches
from pipeline.core.mixing import Block, MemoryPasses, MixedBatches, block_of, check_mixing
from pipeline.core.train_config import TrainConfig

SYNTHETIC, REAL = 40, 7


def mixed(rank: int = 0, num_workers: int = 1, block: Block = Block(1, 4), seed: int = 0) -> MixedBatches:
    """Images whose label is their number; real ones from 100 on."""

    def images(first: int, count: int) -> tuple[Any, Any]:
        numbers = np.arange(first, first + count)
        return numbers.astype(np.uint8)[:, None, None, None].repeat(3, axis=3), numbers

    real = block.reals(16)
    synthetic = MemoryBatches(*images(0, SYNTHETIC), seed, 16 - real, rank, num_workers)
    return MixedBatches(synthetic, MemoryPasses(*images(100, REAL), seed, real, rank, num_workers), block)


def labels_of(source: MixedBatches, epoch: int) -> list[list[int]]:
    return [labels.tolist() for _, labels in source.epoch(epoch)]


def test_every_block_has_its_share_real_images_first() -> None:
    for epoch in range(3):
        for batch in labels_of(mixed(), epoch):
            assert [label >= 100 for label in batch] == [True, False, False, False] * 4


def test_images_come_with_their_labels() -> None:
    for images, labels in mixed().epoch(1):
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


def test_an_epoch_is_a_pass_over_the_synthetic_images() -> None:
    assert mixed().steps_per_epoch == 3  # 12 of 40 in a batch
    seen = [label for batch in labels_of(mixed(), 0) for label in batch if label < 100]
    assert len(seen) == len(set(seen)) == 36


def test_real_images_are_used_in_passes_of_their_own_over_epochs() -> None:
    used = [label for epoch in range(7) for batch in labels_of(mixed(), epoch) for label in batch if label >= 100]
    assert len(used) == 84 == 12 * REAL
    passes = [used[start : start + REAL] for start in range(0, 84, REAL)]
    assert all(sorted(one) == list(range(100, 100 + REAL)) for one in passes)
    assert passes[0] != passes[1]


@pytest.mark.parametrize("num_workers", [2, 4])
def test_global_batches_do_not_depend_on_the_number_of_workers(num_workers: int) -> None:
    parts = [labels_of(mixed(rank, num_workers), 2) for rank in range(num_workers)]
    joined = [[label for part in parts for label in part[step]] for step in range(3)]
    # Within a batch the order may not differ either: the draws of the augmentation belong to places.
    assert joined == labels_of(mixed(), 2)


def test_order_depends_on_seed_and_epoch_only() -> None:
    assert labels_of(mixed(), 1) == labels_of(mixed(), 1)
    assert labels_of(mixed(), 1) != labels_of(mixed(), 0)
    assert labels_of(mixed(), 1) != labels_of(mixed(seed=1), 1)


@pytest.mark.parametrize(("share", "block"), [(0.5, (1, 2)), (0.25, (1, 4)), (0.333333333, (1, 3)), (0.9, (9, 10))])
def test_the_smallest_block_has_exactly_the_share(share: float, block: tuple[int, int]) -> None:
    assert block_of(TrainConfig(real_share=share)) == Block(*block)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"real_share": 0.123}, "no fraction with a denominator up to 64"),
        ({"real_share": 0.1}, "forwards of a multiple of 10 images, and train.batch_size 16 gives 8 to each of 2"),
        ({"real_share": 0.25, "max_batch_per_worker": 2}, "multiple of 4 images.* gives 2"),
        ({"real_share": 0.125, "separate_batch_norm": True}, "two images of each kind in a forward of 8"),
        ({"real_share": 0.5}, "has 8 real images, and there are 7"),
    ],
)
def test_what_does_not_fit_is_an_input_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_mixing(TrainConfig(data="mixed", batch_size=16, num_workers=2, **settings), REAL, SYNTHETIC)


def test_what_fits_passes() -> None:
    settings = TrainConfig(data="mixed", batch_size=16, num_workers=2, real_share=0.25, separate_batch_norm=True)
    check_mixing(settings, REAL, SYNTHETIC)
