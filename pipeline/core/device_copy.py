"""Tensors on their way to the device that trains."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device. A GPU fetches it from pinned memory while the CPU goes on.

    https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html
    """
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)
