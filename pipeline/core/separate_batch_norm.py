"""Batch norms apart for synthetic and real images of one batch.

Auxiliary batch norms of AdvProp (Xie et al., CVPR 2020, arXiv:1911.09665), there for adversarial images: the two kinds
have other statistics, and a shared norm fits neither. Scoring uses the real images' norms.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pipeline.core.mixing import Block


class SeparateBatchNorm(nn.Module):
    """Two batch norms with statistics, weights and biases of their own; in eval mode the one of real images.

    Args:
        norm: that both start as.
        block: of every forward's images.
        images: of a forward; more rows are several crops of each image, side by side.
    """

    def __init__(self, norm: nn.Module, block: Block, images: int) -> None:
        super().__init__()
        self.real = norm
        self.synthetic = copy.deepcopy(norm)
        self._is_real = torch.from_numpy(block.is_real(images))
        self._rows: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

    def forward(self, rows: Tensor) -> Tensor:
        """Features [images * crops, channels, H, W], normalised by kind. Raises `AssertionError` on other numbers."""
        if not self.training:
            output: Tensor = self.real(rows)
            return output
        real, synthetic = self._split(len(rows), rows.device)
        output = torch.empty_like(rows)
        output[real] = self.real(rows[real]).to(rows.dtype)
        output[synthetic] = self.synthetic(rows[synthetic]).to(rows.dtype)
        return output

    def _split(self, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Row numbers of the real and of the synthetic images' crops; found once, or the device would be waited for."""
        if (count, device) not in self._rows:
            crops, rest = divmod(count, len(self._is_real))
            assert crops and not rest, (count, len(self._is_real))
            mask = self._is_real.repeat_interleave(crops)
            self._rows[count, device] = (mask.nonzero()[:, 0].to(device), (~mask).nonzero()[:, 0].to(device))
        return self._rows[count, device]


def separate_batch_norms(network: nn.Module, block: Block, images: int) -> nn.Module:
    """The network, each of its `BatchNorm2d` replaced by a `SeparateBatchNorm` that starts as it."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, SeparateBatchNorm(child, block, images))
        else:
            separate_batch_norms(child, block, images)
    return network


def plain_state(network: nn.Module) -> Mapping[str, Tensor]:
    """The state of a network without the synthetic images' norms, under the names of the plain one."""
    separate = [name for name, module in network.named_modules() if isinstance(module, SeparateBatchNorm)]
    state = dict(network.state_dict())
    for name in separate:
        for key in [key for key in state if key.startswith(f"{name}.")]:
            kind, _, rest = key.removeprefix(f"{name}.").partition(".")
            tensor = state.pop(key)
            if kind == "real":
                state[f"{name}.{rest}"] = tensor
    return state
