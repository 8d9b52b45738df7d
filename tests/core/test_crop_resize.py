"""The batched crop and resize against torch's own, box by box."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pipeline.core.crop_resize import crop_and_resize

BOXES = torch.tensor([[0, 0, 40, 30], [3, 7, 16, 16], [10, 0, 5, 29], [39, 29, 1, 1], [2, 3, 37, 20], [0, 0, 8, 8]])


def test_it_is_torchs_antialiased_bicubic_of_each_crop() -> None:
    images = torch.rand(3, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    mirrored = torch.tensor([False, True, False, False, True, False])
    ours = crop_and_resize(images, BOXES, 16, mirrored)
    for row, (left, top, width, height) in enumerate(BOXES.tolist()):
        crop = images[row // 2 : row // 2 + 1, :, top : top + height, left : left + width]
        expected = F.interpolate(crop, (16, 16), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        torch.testing.assert_close(ours[row], (expected.flip(3) if mirrored[row] else expected)[0], atol=1e-5, rtol=0)


def test_a_box_of_the_output_size_is_only_cut() -> None:
    images = torch.rand(1, 3, 30, 40, generator=torch.Generator().manual_seed(0))
    ours = crop_and_resize(images, torch.tensor([[5, 6, 16, 16]]), 16, torch.tensor([False]))
    torch.testing.assert_close(ours, images[:, :, 6:22, 5:21])
