"""Batches from memory, and what cannot be cut into batches."""

from __future__ import annotations

import functools
import operator

import numpy as np
import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.image_batches import MemoryBatches, check_batches, num_forwards
from pipeline.core.train_config import TrainConfig


def batches(count: int = 23, batch_size: int = 6, rank: int = 0, num_workers: int = 1, seed: int = 0) -> MemoryBatches:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    images.flags.writeable = False  # as from Ray's object store
    return MemoryBatches(images, np.arange(count), seed, batch_size, rank, num_workers)


def labels_of(source: MemoryBatches, epoch: int) -> list[list[int]]:
    return [labels.tolist() for _, labels in source.epoch(epoch)]


def test_an_epoch_holds_each_image_at_most_once_and_drops_the_rest() -> None:
    seen = [label for batch in labels_of(batches(), 0) for label in batch]
    assert len(seen) == len(set(seen)) == 18
    assert batches().steps_per_epoch == 3


def test_order_is_new_in_each_epoch_and_the_same_when_asked_again() -> None:
    assert labels_of(batches(), 0) == labels_of(batches(), 0)
    assert labels_of(batches(), 0) != labels_of(batches(), 1)
    assert labels_of(batches(), 0) != labels_of(batches(seed=1), 0)


def test_images_come_with_their_labels() -> None:
    for images, labels in batches().epoch(0):
        assert images.dtype == torch.uint8
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize("num_workers", [2, 3])
def test_global_batches_do_not_depend_on_the_number_of_workers(num_workers: int) -> None:
    parts = [labels_of(batches(rank=rank, num_workers=num_workers), 3) for rank in range(num_workers)]
    joined = [functools.reduce(operator.iadd, (part[step] for part in parts), []) for step in range(3)]
    assert joined == labels_of(batches(), 3)


@pytest.mark.parametrize(
    ("settings", "num_images", "message"),
    [
        (TrainConfig(batch_size=9, num_workers=2), 100, "cannot be shared equally by 2 workers"),
        (TrainConfig(batch_size=2, num_workers=2), 100, "leaves one image to a forward of each of 2 workers"),
        (TrainConfig(batch_size=16, num_workers=4, min_workers=2), 100, "cannot be shared equally by 3 workers"),
        (TrainConfig(batch_size=10, num_workers=2, max_batch_per_worker=3), 100, "leaves one image to a forward"),
        (TrainConfig(batch_size=64, num_workers=2), 63, "larger than the 63 training images"),
    ],
)
def test_impossible_batches_are_input_errors(settings: TrainConfig, num_images: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_batches(settings, num_images)


@pytest.mark.parametrize(
    ("batch_size", "workers", "says"),
    [
        (1024, (4, 8), "by 5, 6, 7 workers; give one that can, at least 840, nearest 840, or train.min_workers=8"),
        (1024, (1, 4), "by 3 workers; give one that can, at least 12, nearest 1020, or train.min_workers=1 and"),
        (3, (2, 2), "by 2 workers; give one that can, at least 4, nearest 4"),
    ],
)
def test_a_batch_that_has_no_equal_shares_is_told_with_one_that_has(
    batch_size: int, workers: tuple[int, int], says: str
) -> None:
    settings = TrainConfig(batch_size=batch_size, min_workers=workers[0], num_workers=workers[1])
    with pytest.raises(InputError, match=says) as caught:
        check_batches(settings, 10_000)
    told = int(str(caught.value).partition("nearest ")[2].partition(",")[0])
    check_batches(settings.model_copy(update={"batch_size": told}), 10_000)


def test_possible_batches_pass() -> None:
    check_batches(TrainConfig(batch_size=64, num_workers=2), 64)


@pytest.mark.parametrize(("most", "workers", "expected"), [(None, 1, 1), (256, 4, 1), (255, 4, 2), (64, 1, 16)])
def test_a_share_goes_through_in_as_few_equal_parts_as_allowed(most: int | None, workers: int, expected: int) -> None:
    assert num_forwards(TrainConfig(batch_size=1024, max_batch_per_worker=most), workers) == expected
