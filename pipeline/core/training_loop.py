"""The training loop: plain, linear, and without Ray, so that one process can run and test it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.core.augment import TrainAugmentation
from pipeline.core.errors import WorkError
from pipeline.core.image_batches import ImageBatches
from pipeline.core.optimizer import learning_rate, set_learning_rate
from pipeline.core.train_config import TrainConfig

LOSS_CHECK_STEPS = 50
"""Steps between looks at the losses: each look waits for the device."""

EpochMetrics = dict[str, float]


def run_epochs(
    config: TrainConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: ImageBatches,
    device: torch.device,
    first_epoch: int,
    on_epoch: Callable[[int, EpochMetrics], None],
) -> None:
    """Train from `first_epoch` (0-based) to `config.epochs`, in step with the other processes of the default group.

    Args:
        config: of the training.
        model: on the device, wrapped in DDP when there is a process group.
        optimizer: of `pipeline.core.optimizer`.
        batches: this process's part of the data.
        device: where the model is.
        first_epoch: epochs that are done already.
        on_epoch: called by every process after each epoch with the number of epochs done and the metrics of all.

    Raises:
        WorkError: a loss is not finite; every process raises it together, with the step.
    """
    augment = TrainAugmentation(config)
    for epoch in range(first_epoch, config.epochs):
        on_epoch(epoch + 1, run_epoch(config, model, optimizer, batches, augment, device, epoch))


def run_epoch(
    config: TrainConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: ImageBatches,
    augment: TrainAugmentation,
    device: torch.device,
    epoch: int,
) -> EpochMetrics:
    """One pass over the data (`epoch` is 0-based); arguments and errors as for `run_epochs`.

    Returns:
        loss and accuracy (sums over all processes, divided once), learning_rate (of the last step), images and
        images_per_s of all; of this process seconds, first_batch_s (wait for the first batch), data_wait_s (for the
        later ones) and step_s (all the rest).
    """
    rank, num_workers = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    model.train()
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss, correct, images
    losses: list[Tensor] = []
    waits: list[float] = []
    start = time.perf_counter()
    steps = batches.steps_per_epoch
    for step, (images, labels) in enumerate(timed(batches.epoch(epoch), waits)):
        set_learning_rate(optimizer, learning_rate(config, epoch * steps + step, steps))
        inputs = augment(images.to(device, non_blocking=True), epoch, step, rank, num_workers)
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.mixed_precision == "bfloat16"):
            logits = model(inputs)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(loss.detach())
            correct = (logits.argmax(1) == labels).sum()
            sums += torch.stack([loss.detach() * len(labels), correct, torch.full_like(loss, len(labels))])
        if len(losses) == LOSS_CHECK_STEPS:
            check_finite(losses, epoch * steps + step + 1)
            losses.clear()
    check_finite(losses, epoch * steps + len(waits))
    if dist.is_initialized():
        dist.all_reduce(sums)
    loss_sum, num_correct, num_images = sums.tolist()
    seconds = time.perf_counter() - start
    return {
        "loss": loss_sum / num_images,
        "accuracy": num_correct / num_images,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "images": num_images,
        "images_per_s": num_images / seconds,
        "seconds": seconds,
        "first_batch_s": waits[0],
        "data_wait_s": sum(waits[1:]),
        "step_s": seconds - sum(waits),
    }


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


def check_finite(losses: list[Tensor], next_step: int) -> None:
    """Raises `WorkError` in all processes when one of the losses up to before `next_step` is not finite in any."""
    if not losses:
        return
    bad = (~torch.isfinite(torch.stack(losses))).int()
    if dist.is_initialized():
        dist.all_reduce(bad)
    if bad.any():
        step = next_step - len(losses) + int(bad.ne(0).int().argmax())
        raise WorkError(
            f"the training loss is not finite at step {step}; lower train.learning_rate or raise train.warmup_epochs "
            "and run the same command again"
        )
