"""The loop, without Ray: it learns, resumes, sums its metrics and stops on a loss that is no number."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.augment import PytorchAugmentation
from pipeline.core.errors import WorkError
from pipeline.core.image_batches import MemoryBatches
from pipeline.core.multi_crop import MultiCropAugmentation
from pipeline.core.train_config import MultiCropConfig, TrainConfig
from pipeline.core.training_loop import EpochMetrics, learn, run_epoch, run_epochs
from pipeline.core.training_state import start_training

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


class SmallNetwork(nn.Sequential):
    """One convolution and a head, without a batch norm."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

    def forward(self, *crops: torch.Tensor) -> torch.Tensor:
        return torch.cat([nn.Sequential.forward(self, crop) for crop in crops])


def small_network() -> SmallNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SmallNetwork()


def train(settings: TrainConfig, network: nn.Module, first_epoch: int = 0) -> list[tuple[int, EpochMetrics]]:
    done: list[tuple[int, EpochMetrics]] = []
    device = torch.device(settings.device)
    state = start_training(settings, network.to(device))
    run_epochs(settings, state, four_colours(), device, first_epoch, lambda n, m: done.append((n, m)))
    return done


def check_it_learns(**settings: object) -> None:
    """tests/gpu asks this of a GPU."""
    done = train(SETTINGS.model_copy(update={"epochs": 25, **settings}), small_network())
    assert done[0][1]["accuracy"] < 0.6
    assert done[-1][1]["accuracy"] > 0.9
    assert done[-1][1]["loss"] < done[0][1]["loss"] / 2


def test_it_learns() -> None:
    check_it_learns()


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
    state = start_training(settings, broken)
    augment = PytorchAugmentation(settings)
    for epoch in range(2):
        run_epoch(settings, state, four_colours(), augment, CPU, epoch)
    resumed = start_training(settings, copy.deepcopy(broken))
    resumed.load_state_dicts(state.state_dicts())
    done: list[int] = []
    run_epochs(settings, resumed, four_colours(), CPU, 2, lambda n, _: done.append(n))
    train(settings, unbroken)
    assert done == [3, 4]
    for ours, theirs in zip(resumed.network.parameters(), unbroken.parameters(), strict=True):
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
    state = start_training(settings, Constant())
    metrics = run_epoch(settings, state, four_colours(), PytorchAugmentation(settings), CPU, 0)
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
    metrics = run_epoch(
        SETTINGS, start_training(SETTINGS, small_network()), slow, PytorchAugmentation(SETTINGS), CPU, 0
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
    network[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    train(SETTINGS.model_copy(update={"epochs": 1, "mixed_precision": "bfloat16"}), network)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("augmentation", ["pytorch", "dino_multicrop"])
def test_a_batch_in_two_forwards_gives_the_losses_of_one(augmentation: str) -> None:
    settings = SETTINGS.model_copy(
        update={"epochs": 2, "augmentation": augmentation, "multi_crop": MultiCropConfig(num_local=2, local_size=10)}
    )
    whole = train(settings, small_network())
    parts = train(settings.model_copy(update={"max_batch_per_worker": 8}), small_network())
    for (_, one), (_, two) in zip(whole, parts, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert two["images"] == one["images"] == 64


def test_every_crop_counts_in_the_loss_and_has_its_images_label() -> None:
    class ByBrightness(nn.Module):
        """Says a class by an image's first pixel, so that a wrong label is a loss."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(20.0))

        def forward(self, *crops: torch.Tensor) -> torch.Tensor:
            levels = torch.cat([(crop[:, 0, 0, 0] * 0.229 + 0.485) * 255 / 60 for crop in crops])
            return -self.scale * (levels[:, None] - torch.arange(4)).abs()

    plain = {name: 0.0 for name in MultiCropConfig.model_fields if name.endswith("_probability")}
    settings = SETTINGS.model_copy(
        update={"multi_crop": MultiCropConfig.model_validate({"num_local": 3, "local_size": 8, **plain})}
    )
    labels = torch.arange(16) % 4
    images = (labels * 60).to(torch.uint8).view(16, 1, 1, 1).expand(16, 16, 16, 3)
    state = start_training(settings, ByBrightness())
    crops = MultiCropAugmentation(settings)(images, 0, 0)
    assert [len(crop) for crop in crops] == [16, 48]
    loss, correct = learn(settings, state, crops, labels, forwards=1)
    assert loss.item() < 0.01 and correct.item() == 16


def test_the_running_mean_is_what_is_published_and_survives_a_checkpoint() -> None:
    settings = SETTINGS.model_copy(update={"ema_decay": 0.9, "epochs": 1})
    network = small_network()
    state = start_training(settings, network)
    first = [parameter.detach().clone() for parameter in network.parameters()]
    run_epochs(settings, state, four_colours(), CPU, 0, lambda _n, _m: None)
    assert state.trained is not network
    for mean, start, end in zip(state.trained.parameters(), first, network.parameters(), strict=True):
        assert (mean - end).norm() < (start - end).norm()  # on the way
        assert not torch.equal(mean, end)
    again = start_training(settings, small_network())
    again.load_state_dicts(state.state_dicts())
    for ours, theirs in zip(again.trained.parameters(), state.trained.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_running_mean_has_the_known_value() -> None:
    settings = SETTINGS.model_copy(update={"ema_decay": 0.9})
    layer = nn.Linear(1, 1, bias=False)
    state = start_training(settings, layer)
    for value in (1.0, 2.0, 3.0):  # the first one is taken as it is
        with torch.no_grad():
            layer.weight.fill_(value)
        layer.weight.grad = torch.zeros_like(layer.weight)
        state.step()
    assert next(state.trained.parameters()).item() == pytest.approx((1 * 0.9 + 2 * 0.1) * 0.9 + 3 * 0.1)


def test_float16_keeps_gradients_that_it_could_not_hold() -> None:
    settings = SETTINGS.model_copy(update={"mixed_precision": "float16", "epochs": 25})
    done = train(settings, small_network())  # GradScaler on the CPU, the same class as on cuda
    assert start_training(settings, small_network()).scaler.is_enabled()
    assert done[-1][1]["accuracy"] > 0.9
