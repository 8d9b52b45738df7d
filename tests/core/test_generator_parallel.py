"""Gradients from several threads are those of one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline.core.generator_parallel import ParallelGradients


@pytest.mark.parametrize(("batch", "num_threads"), [(7, 1), (7, 3), (2, 4)])
def test_gradients_are_those_of_the_whole_batch(batch: int, num_threads: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    inputs, targets = torch.randn(batch, 5), torch.randn(batch, 1)

    def loss(piece: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (network(piece) - target).square().mean()

    expected_loss = loss(inputs, targets)
    expected = torch.autograd.grad(expected_loss, list(network.parameters()))
    parallel = ParallelGradients(list(network.parameters()), num_threads)
    assert parallel.backward(loss, inputs, targets) == pytest.approx(expected_loss.item(), rel=1e-5)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
