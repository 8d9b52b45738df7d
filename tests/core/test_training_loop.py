"""The loop, without Ray: it learns, resumes, sums its metrics and stops on a loss that is no number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.augment import TrainAugmentation
from pipeline.core.errors import WorkError
from pipeline.core.image_batches import MemoryBatches
from pipeline.core.optimizer import build_optimizer
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_loop import EpochMetrics, run_epoch, run_epochs

CPU = torch.device("cpu")
SETTINGS = TrainConfig(
    input_size=16, epochs=6, batch_size=16, learning_rate=4.0, warmup_epochs=1, min_crop_scale=0.9, num_workers=1
)


def four_colours(count: int = 64) -> MemoryBatches:
    """Noisy images in black, red, green or blue, labelled by colour."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 4
    tints = np.array([[0, 0, 0], [90, 0, 0], [0, 90, 0], [0, 0, 90]])
    images = rng.integers(0, 120, (count, 16, 16, 3)) + tints[labels][:, None, None]
    return MemoryBatches(images.astype(np.uint8), labels, seed=0, batch_size=16)


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *pool, nn.Linear(8, 4))


def train(settings: TrainConfig, network: nn.Module, first_epoch: int = 0) -> list[tuple[int, EpochMetrics]]:
    done: list[tuple[int, EpochMetrics]] = []
    optimizer = build_optimizer(network, settings)
    run_epochs(settings, network, optimizer, four_colours(), CPU, first_epoch, lambda n, m: done.append((n, m)))
    return done


def test_it_learns() -> None:
    done = train(SETTINGS.model_copy(update={"epochs": 25}), small_network())
    assert done[0][1]["accuracy"] < 0.6
    assert done[-1][1]["accuracy"] > 0.9
    assert done[-1][1]["loss"] < done[0][1]["loss"] / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = small_network(), small_network(), small_network()
    train(SETTINGS, first)
    train(SETTINGS, second)
    train(SETTINGS.model_copy(update={"seed": 1}), other)
    weights = [next(iter(network.parameters())) for network in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_going_on_from_an_epoch_ends_where_an_unbroken_run_ends() -> None:
    unbroken, broken = small_network(), small_network()
    settings = SETTINGS.model_copy(update={"epochs": 4})
    optimizer = build_optimizer(broken, settings)
    augment = TrainAugmentation(settings)
    for epoch in range(2):
        run_epoch(settings, broken, optimizer, four_colours(), augment, CPU, epoch)
    resumed = build_optimizer(broken, settings)
    resumed.load_state_dict(optimizer.state_dict())
    done: list[int] = []
    run_epochs(settings, broken, resumed, four_colours(), CPU, 2, lambda n, _: done.append(n))
    train(settings, unbroken)
    assert done == [3, 4]
    for ours, theirs in zip(broken.parameters(), unbroken.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_metrics_are_sums_over_images_divided_once() -> None:
    class Constant(nn.Module):
        """Says class 0 with probability 1/2, and the others with 1/6, whatever it sees."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.log(torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6])))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.bias.expand(len(images), 4)

    settings = SETTINGS.model_copy(update={"learning_rate": 1e-12})
    network = Constant()
    optimizer = build_optimizer(network, settings)
    metrics = run_epoch(settings, network, optimizer, four_colours(), TrainAugmentation(settings), CPU, 0)
    assert metrics["accuracy"] == 0.25
    assert metrics["loss"] == pytest.approx((np.log(2) + 3 * np.log(6)) / 4, rel=1e-5)
    assert metrics["images"] == 64
    assert metrics["images_per_s"] == pytest.approx(64 / metrics["seconds"])
    parts = metrics["first_batch_s"] + metrics["data_wait_s"] + metrics["step_s"]
    assert parts == pytest.approx(metrics["seconds"])


class SlowBatches(MemoryBatches):
    """Waits before every batch but the first, and longer before the first."""

    def epoch(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import time

        for step, batch in enumerate(super().epoch(epoch)):
            time.sleep(0.05 if step else 0.4)
            yield batch


def test_waiting_for_data_is_timed_apart_from_steps_and_the_first_batch_apart() -> None:
    memory = four_colours()
    slow = SlowBatches(memory.images, memory.labels, 0, 16)
    network = small_network()
    metrics = run_epoch(
        SETTINGS, network, build_optimizer(network, SETTINGS), slow, TrainAugmentation(SETTINGS), CPU, 0
    )
    assert 0.4 <= metrics["first_batch_s"] < 0.6
    assert 0.15 <= metrics["data_wait_s"] < 0.4


class BreaksAt(nn.Module):
    """A network whose output is not a number at one call."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.inner = small_network()
        self.calls, self.call = 0, call

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        logits: torch.Tensor = self.inner(images)
        return logits * float("nan") if self.calls - 1 == self.call else logits


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_loss_that_is_no_number_stops_with_the_step(step: int) -> None:
    with pytest.raises(WorkError, match=rf"not finite at step {step};"):
        train(SETTINGS, BreaksAt(step))


def test_bfloat16_autocast_reaches_the_network() -> None:
    seen: list[torch.dtype] = []
    network = small_network()
    network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))  # type: ignore[operator]
    train(SETTINGS.model_copy(update={"epochs": 1, "mixed_precision": "bfloat16"}), network)
    assert set(seen) == {torch.bfloat16}
