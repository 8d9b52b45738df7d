"""The optimizer's groups and the learning rate."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from pipeline.core.classifier import build_classifier
from pipeline.core.optimizer import build_optimizer, learning_rate, set_learning_rate
from pipeline.core.train_config import TrainConfig

SETTINGS = TrainConfig(
    input_size=32, epochs=10, batch_size=64, learning_rate=0.4, warmup_epochs=2, final_learning_rate=1e-6
)


def test_only_weights_decay() -> None:
    network = build_classifier(SETTINGS, 10)
    decayed, plain = build_optimizer(network, SETTINGS).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert decayed["weight_decay"] == SETTINGS.weight_decay
    assert plain["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} | {id(p) for p in plain["params"]} == set(names)
    assert all("bn" in names[id(p)] or names[id(p)].endswith(("bias", "downsample.1.weight")) for p in plain["params"])
    assert "fc.weight" in {names[id(p)] for p in decayed["params"]}


def test_learning_rate_warms_up_from_zero_and_falls_to_the_final_one() -> None:
    rates = [learning_rate(SETTINGS, step, steps_per_epoch=5) for step in range(50)]
    peak = 0.4 * 64 / 256
    assert rates[:3] == pytest.approx([0, peak / 10, 2 * peak / 10])
    assert max(rates) == rates[10] == pytest.approx(peak)
    assert rates[30] == pytest.approx((peak + 1e-6) / 2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(SETTINGS, 50, 5) == pytest.approx(1e-6)


def test_without_warm_up_it_starts_at_the_peak() -> None:
    settings = SETTINGS.model_copy(update={"warmup_epochs": 0})
    assert learning_rate(settings, 0, 5) == pytest.approx(0.1)


def test_a_training_that_is_all_warm_up_is_defined() -> None:
    settings = SETTINGS.model_copy(update={"warmup_epochs": 10})
    assert learning_rate(settings, 49, 5) == pytest.approx(0.1 * 49 / 50)


def test_set_learning_rate_reaches_every_group() -> None:
    optimizer = build_optimizer(torch.nn.Linear(2, 2), SETTINGS)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.fixture
def unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what `empty_like` gives
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("unwritten_memory_is_nan")
def test_a_first_step_that_overflows_leaves_no_momentum() -> None:
    """float16 begins with a loss scale that is meant to overflow; what follows must be as if that step never was."""
    settings = SETTINGS.model_copy(update={"weight_decay": 0.0})
    layer = torch.nn.Linear(2, 2)
    plain = copy.deepcopy(layer)
    optimizer, reference = build_optimizer(layer, settings), torch.optim.SGD(plain.parameters(), 0.5, momentum=0.9)
    set_learning_rate(optimizer, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for gradient in (float("inf"), 1.0, 3.0):
        for parameter in layer.parameters():
            parameter.grad = torch.full_like(parameter, float(scaler.scale(torch.tensor(gradient))))
        scaler.step(optimizer)
        scaler.update()
        if gradient == float("inf"):
            assert all(not optimizer.state[p]["momentum_buffer"].any() for p in layer.parameters())
            continue
        for parameter in plain.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        reference.step()
    for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
