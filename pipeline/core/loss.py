"""The loss of a training: the cross-entropy, or one that knows how frequent each class is."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.core.train_config import TrainConfig


class AdjustedCrossEntropy(nn.Module):
    """The mean cross-entropy of logits that have `strength * log(share)` of their class added.

    So the network's own logits learn what the images say and leave out how frequent a class was; they are scored as
    they are. With strength 1 it is the balanced softmax (Menon et al. 2021, https://arxiv.org/abs/2007.07314, section
    5; Ren et al. 2020, https://arxiv.org/abs/2007.10740).

    Args:
        class_shares: of every class in the batches, float64 [C], above 0.
        strength: 0 or more.
    """

    offsets: Tensor

    def __init__(self, class_shares: NDArray[np.float64], strength: float) -> None:
        super().__init__()
        assert (class_shares > 0).all(), "a class without images has no share to adjust by"
        self.register_buffer("offsets", torch.from_numpy(strength * np.log(class_shares)).float(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """float32 logits [B, C] and labels int64 [B] -> a scalar."""
        return F.cross_entropy(logits + self.offsets, labels)


def build_loss(config: TrainConfig, class_shares: NDArray[np.float64] | None) -> nn.Module:
    """The loss that a config names; without shares all classes are equally frequent, which leaves nothing to adjust."""
    if config.logit_adjustment == 0 or class_shares is None:
        return nn.CrossEntropyLoss()
    return AdjustedCrossEntropy(class_shares, config.logit_adjustment)
