"""All that a training changes, and its loss: network, optimizer, loss scale, running mean; what a checkpoint holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.core.loss import build_loss
from pipeline.core.optimizer import build_optimizer
from pipeline.core.train_config import TrainConfig

AUTOCAST = {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtype of `TrainConfig.mixed_precision`."""


@dataclass(frozen=True)
class TrainingState:
    """What a process trains.

    Args:
        network: on its device, not wrapped.
        model: the network, wrapped in DDP when there is a process group.
        optimizer: of the network.
        scaler: multiplies the loss in float16, whose smallest gradients would be lost; else does nothing.
        average: running mean of the network, or None.
        loss: of float32 logits [B, C] and labels int64 [B], a scalar.
    """

    network: nn.Module
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    loss: nn.Module

    @property
    def trained(self) -> nn.Module:
        """The network that is published: the running mean where there is one."""
        if self.average is None:
            return self.network
        averaged: nn.Module = self.average.module
        return averaged

    def gradients_apart(self) -> AbstractContextManager[Any]:
        """While it is open, gradients only add up in this process and are not exchanged."""
        return self.model.no_sync() if isinstance(self.model, DistributedDataParallel) else nullcontext()

    def step(self) -> None:
        """Change the weights by the gradients that have come together."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.network)

    def state_dicts(self) -> dict[str, dict[str, Any]]:
        """The state by part; a part that is not used is not there."""
        states = {"weights": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.scaler.is_enabled():
            states["scaler"] = self.scaler.state_dict()
        if self.average is not None:
            states["average"] = self.average.state_dict()
        return states

    def load_state_dicts(self, states: dict[str, dict[str, Any]]) -> None:
        """Go on from `state_dicts` of the same config."""
        self.network.load_state_dict(states["weights"])
        self.optimizer.load_state_dict(states["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(states["scaler"])
        if self.average is not None:
            self.average.load_state_dict(states["average"])


def start_training(
    config: TrainConfig,
    network: nn.Module,
    model: nn.Module | None = None,
    class_shares: NDArray[np.float64] | None = None,
) -> TrainingState:
    """The state before the first step.

    Args:
        config: of the training.
        network: on its device.
        model: the network in DDP; default: the network itself.
        class_shares: of every class in the batches, float64 [C], for `logit_adjustment`; default: all alike.
    """
    average = None
    if config.ema_decay is not None:
        average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=True)
    device = next(network.parameters()).device.type
    scaler = torch.amp.GradScaler(device, enabled=config.mixed_precision == "float16")
    loss = build_loss(config, class_shares).to(device)
    return TrainingState(network, model or network, build_optimizer(network, config), scaler, average, loss)


@contextmanager
def ddp_options() -> Iterator[dict[str, Any]]:
    """Keyword arguments of `DistributedDataParallel`, which is to be made inside.

    Buffers are not broadcast in every step: all workers start with the same ones, and rank 0's are those that are kept.
    """
    with warnings.catch_warnings():
        # torch 2.15 renames the option, and the new name is unknown to the oldest torch that is allowed.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        yield {"gradient_as_bucket_view": True, "broadcast_buffers": False}
