"""Gradients of a batch from several Python threads, each with one torch thread.

One torch operation spread over many threads waits for the slowest at its end; on a machine that does other work too,
that made steps of these small networks several times slower than on one thread. Here threads meet once per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

Loss = Callable[..., torch.Tensor]


class ParallelGradients:
    """Computes mean losses and their gradients over slices of a batch at the same time.

    The result does not depend on which thread is faster: slices are summed in their order.

    Args:
        parameters: the parameters that get gradients.
        num_threads: threads, and slices of every batch.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], num_threads: int) -> None:
        self._parameters = list(parameters)
        self._pool = ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,))
        self._num_threads = num_threads

    def backward(self, loss: Loss, *batch: torch.Tensor) -> float:
        """Set `.grad` of every parameter to the gradient of the mean loss over a batch.

        Args:
            loss: the mean loss of a slice, from one slice of every tensor of `batch`.
            batch: tensors [B, ...].

        Returns:
            The mean loss over the batch.
        """
        size = len(batch[0])
        pieces = list(zip(*(torch.tensor_split(tensor, self._num_threads) for tensor in batch), strict=True))
        pieces = [piece for piece in pieces if len(piece[0])]

        def gradients(piece: tuple[torch.Tensor, ...]) -> tuple[float, tuple[torch.Tensor, ...]]:
            value = loss(*piece) * (len(piece[0]) / size)
            return value.item(), torch.autograd.grad(value, self._parameters)

        results = list(self._pool.map(gradients, pieces))
        for parameter, *slices in zip(self._parameters, *(result[1] for result in results), strict=True):
            parameter.grad = torch.stack(slices).sum(dim=0) if len(slices) > 1 else slices[0]
        return sum(result[0] for result in results)
