"""The loss that knows how frequent each class is: its formula, and the border between classes that it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.core.loss import build_loss
from pipeline.core.train_config import TrainConfig

ADJUSTED = TrainConfig(logit_adjustment=1)


@pytest.mark.parametrize("strength", [0.5, 1, 2])
def test_it_is_the_formula_of_the_paper(strength: float) -> None:
    rng = np.random.default_rng(0)
    logits, labels, shares = rng.normal(0, 3, (6, 4)), np.array([0, 1, 2, 3, 0, 1]), np.array([0.5, 0.3, 0.15, 0.05])
    weighted = shares**strength * np.exp(logits)
    expected = -np.log(weighted[np.arange(6), labels] / weighted.sum(axis=1)).mean()
    loss = build_loss(TrainConfig(logit_adjustment=strength), shares)
    assert loss(torch.tensor(logits, dtype=torch.float32), torch.tensor(labels)).item() == pytest.approx(expected)


def test_equal_shares_change_nothing() -> None:
    logits, labels = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    plain = build_loss(TrainConfig(), None)(logits, labels)
    assert torch.allclose(build_loss(ADJUSTED, np.full(5, 0.2))(logits, labels), plain)


def test_a_class_without_a_share_is_the_callers_mistake() -> None:
    with pytest.raises(AssertionError, match="no share"):
        build_loss(ADJUSTED, np.array([0.0, 1.0]))


def border(config: TrainConfig, values: Tensor, labels: Tensor) -> float:
    """Where a logistic regression, trained to the end with the loss of a config, puts the border of two classes."""
    shares = (torch.bincount(labels) / len(labels)).double().numpy()
    line, loss = nn.Linear(1, 2).double(), build_loss(config, shares).double()
    optimizer = torch.optim.LBFGS(line.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = loss(line(values), labels)
        value.backward()
        return value

    optimizer.step(closure)
    (slope_0, slope_1), (bias_0, bias_1) = line.weight.flatten().tolist(), line.bias.tolist()
    return (bias_0 - bias_1) / (slope_1 - slope_0)


def test_the_border_lies_where_equally_frequent_classes_have_it() -> None:
    """Normal classes at -1 and +1, nine of the first to one of the second: Bayes' borders are at ln(9) / 2 and at 0."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(40_000) % 10 == 9).long()
    values = (torch.randn(40_000, 1, generator=generator) + 2 * labels[:, None] - 1).double()
    assert border(TrainConfig(), values, labels) == pytest.approx(math.log(9) / 2, abs=0.06)
    assert border(ADJUSTED, values, labels) == pytest.approx(0, abs=0.06)
