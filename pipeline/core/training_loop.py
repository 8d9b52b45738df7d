"""The training loop: plain, linear, and without Ray, so that one process can run and test it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.core.augment import Augmentation, PytorchAugmentation
from pipeline.core.device_copy import sent
from pipeline.core.errors import SharedError
from pipeline.core.image_batches import ImageBatches, num_forwards
from pipeline.core.multi_crop import MultiCropAugmentation
from pipeline.core.optimizer import learning_rate, set_learning_rate
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_state import AUTOCAST, TrainingState

LOSS_CHECK_STEPS = 50
"""Steps between looks at the losses: each look waits for the device."""

EpochMetrics = dict[str, float]


def run_epochs(
    config: TrainConfig,
    state: TrainingState,
    batches: ImageBatches,
    device: torch.device,
    first_epoch: int,
    on_epoch: Callable[[int, EpochMetrics], None],
) -> None:
    """Train from `first_epoch` (0-based) to `config.epochs`, in step with the other processes of the default group.

    Args:
        config: of the training.
        state: on the device, its model wrapped in DDP when there is a process group.
        batches: this process's part of the data.
        device: where the model is.
        first_epoch: epochs that are done already.
        on_epoch: called by every process after each epoch with the number of epochs done and the metrics of all.

    Raises:
        SharedError: a loss is not finite; with the step.
    """
    augment = build_augmentation(config)
    for epoch in range(first_epoch, config.epochs):
        on_epoch(epoch + 1, run_epoch(config, state, batches, augment, device, epoch))


def build_augmentation(config: TrainConfig) -> Augmentation:
    """The augmentation that a config names."""
    return PytorchAugmentation(config) if config.augmentation == "pytorch" else MultiCropAugmentation(config)


def run_epoch(
    config: TrainConfig,
    state: TrainingState,
    batches: ImageBatches,
    augment: Augmentation,
    device: torch.device,
    epoch: int,
) -> EpochMetrics:
    """One pass over the data (`epoch` is 0-based); arguments and errors as for `run_epochs`.

    Returns:
        loss (over all crops) and accuracy (over the first crop of each image), sums over all processes divided once,
        learning_rate (of the last step), images and images_per_s of all; of this process seconds, first_batch_s (wait
        for the first batch), data_wait_s (for the later ones) and step_s (all the rest).
    """
    rank, num_workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    forwards = num_forwards(config, num_workers)
    state.model.train()
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, images
    losses: list[Tensor] = []
    waits: list[float] = []
    start = time.perf_counter()
    steps = batches.steps_per_epoch
    for step, (images, labels) in enumerate(timed(batches.epoch(epoch), waits)):
        set_learning_rate(state.optimizer, learning_rate(config, epoch * steps + step, steps))
        parts = list(zip(images.chunk(forwards), labels.chunk(forwards), strict=True))
        state.optimizer.zero_grad()
        for index, (part_images, part_labels) in enumerate(parts):
            part_images, part_labels = sent(part_images, device), sent(part_labels, device)
            crops = augment(part_images, epoch, step, rank * forwards + index, num_workers * forwards)
            with state.gradients_apart() if index < forwards - 1 else nullcontext():
                loss, correct = learn(config, state, crops, part_labels, forwards)
            with torch.no_grad():
                losses.append(loss)
                sums += torch.stack([loss * len(part_labels), correct, torch.full_like(loss, len(part_labels))])
        state.step()
        if len(losses) >= LOSS_CHECK_STEPS * forwards:
            check_finite(losses, epoch * steps + step + 1, forwards)
            losses.clear()
    check_finite(losses, epoch * steps + len(waits), forwards)
    if dist.is_initialized():
        dist.all_reduce(sums)
    loss_sum, num_correct, num_images = sums.tolist()
    seconds = time.perf_counter() - start
    return {
        "loss": loss_sum / num_images,
        "accuracy": num_correct / num_images,
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "images": num_images,
        "images_per_s": num_images / seconds,
        "seconds": seconds,
        "first_batch_s": waits[0],
        "data_wait_s": sum(waits[1:]),
        "step_s": seconds - sum(waits),
    }


def learn(
    config: TrainConfig, state: TrainingState, crops: list[Tensor], labels: Tensor, forwards: int
) -> tuple[Tensor, Tensor]:
    """One forward and backward; the gradients are those of a batch that goes through in `forwards` equal parts.

    Every crop has the label of its image. All resolutions go through the model in one call, as DDP wants it.

    Returns:
        The mean loss over all crops, and how many first crops are classified right; scalars on the device.
    """
    dtype = AUTOCAST[config.mixed_precision]
    with torch.autocast(labels.device.type, dtype, enabled=dtype is not None):
        logits = state.model(*crops)
    every_label = torch.cat([labels.repeat_interleave(len(crop) // len(labels)) for crop in crops])
    loss = state.loss(logits.float(), every_label)
    state.scaler.scale(loss / forwards).backward()
    return loss.detach(), (logits.detach()[: len(labels)].argmax(1) == labels).sum()


def timed(batches: Iterator[Any], waits: list[float]) -> Iterator[Any]:
    """The same items; the seconds that each one took to come are added to `waits`."""
    while True:
        start = time.perf_counter()
        try:
            item = next(batches)
        except StopIteration:
            return
        waits.append(time.perf_counter() - start)
        yield item


def check_finite(losses: list[Tensor], next_step: int, forwards: int) -> None:
    """Raises `SharedError` in all processes when one of the losses up to before `next_step` is not finite in any.

    `losses` has `forwards` of each step.
    """
    if not losses:
        return
    bad = (~torch.isfinite(torch.stack(losses))).int()
    if dist.is_initialized():
        dist.all_reduce(bad)
    if bad.any():
        step = next_step - (len(losses) - int(bad.ne(0).int().argmax()) - 1) // forwards - 1
        raise SharedError(
            f"the training loss is not finite at step {step}; lower train.learning_rate or raise train.warmup_epochs "
            "and run the same command again"
        )
