"""Crop and resize every image of a batch by a box of its own, antialiased, as two matrix products.

A bicubic resize is separable: an output row is a weighted sum of input rows. With the weights of each box in a matrix,
all boxes of all images go through two batched products on any device. The result is the one of cropping each image and
resizing it with PIL or `torch.nn.functional.interpolate(..., mode="bicubic", antialias=True)`, which kornia's batched
crops (`grid_sample`, without antialiasing) are not: a local crop shrinks its part of the image up to twofold.
"""

from __future__ import annotations

import torch
from torch import Tensor

_A = -0.5
"""Of the cubic kernel, as PIL and torch's antialiased resize have it."""


def crop_and_resize(images: Tensor, boxes: Tensor, size: int, mirrored: Tensor) -> Tensor:
    """Cut the boxes, the same number from every image, and resize each to a square.

    Args:
        images: float [n, C, H, W] in 0..1.
        boxes: int64 [n * k, 4] of left, top, width, height in pixels, the k boxes of an image side by side.
        size: pixels of a side of the output.
        mirrored: bool [n * k], whether a crop is flipped from left to right.

    Returns:
        Float [n * k, C, size, size] in 0..1, cubic overshoot cut off.
    """
    count, channels, height, width = images.shape
    left, top, box_width, box_height = boxes.to(images).unbind(1)
    rows = resize_weights(top, box_height, height, size)
    columns = resize_weights(left, box_width, width, size)
    columns = torch.where(mirrored.to(images.device)[:, None, None], columns.flip(1), columns)
    crops = len(boxes) // count
    tall = rows.view(count, 1, crops * size, height) @ images  # [n, C, k * size, W]
    tall = tall.view(count, channels, crops, size, width).transpose(1, 2)  # [n, k, C, size, W]
    output = tall @ columns.view(count, crops, 1, size, width).transpose(-1, -2)
    return output.reshape(count * crops, channels, size, size).clamp(0, 1)


def resize_weights(start: Tensor, length: Tensor, extent: int, size: int) -> Tensor:
    """Weights [n, size, extent] of the input's pixels in each output pixel, for n ranges of `length` from `start`."""
    scale = (length / size)[:, None, None]
    stretch = scale.clamp(min=1)  # antialiasing: the kernel grows with the step between output pixels
    outputs = torch.arange(size, device=start.device)[None, :, None] + 0.5
    pixels = torch.arange(extent, device=start.device)[None, None, :]
    begin = start[:, None, None]
    weights = _cubic((pixels + 0.5 - begin - outputs * scale) / stretch)
    weights = weights * ((pixels >= begin) & (pixels < begin + length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
