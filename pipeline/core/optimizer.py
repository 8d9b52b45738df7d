"""SGD as trex, the code base beside the paper, sets it: weight decay on weights only, warm-up and cosine per step."""

from __future__ import annotations

import math

import torch
from torch import nn

from pipeline.core.train_config import TrainConfig

REFERENCE_BATCH = 256
"""Batch that `TrainConfig.learning_rate` is meant for."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD over all parameters; weight decay only on those with more than one dimension (no biases, no norms).

    The parameters must be on their device already: the momentum, zero at first, is made beside them.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, fused=True)
    if config.momentum:
        # Left to itself, fused SGD takes memory as it is and trusts its first step to fill it, which a step that the
        # loss scale skips does not. From zeros the first step is the same: without dampening, 0.9 * 0 + gradient.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear from 0 to the peak over the warm-up, then a cosine to the final one.

    Args:
        config: `learning_rate` is scaled linearly with the global batch, `final_learning_rate` is not.
        step: 0-based over the whole training.
        steps_per_epoch: at least 1.
    """
    peak = config.learning_rate * config.batch_size / REFERENCE_BATCH
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return peak * step / warmup
    progress = (step - warmup) / (config.epochs * steps_per_epoch - warmup)
    return config.final_learning_rate + (peak - config.final_learning_rate) * (1 + math.cos(math.pi * progress)) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = value
