"""DINO's multi-crop augmentation, per crop and in batches: one global and several local crops of every image.

Values: naver/trex, the code base beside the paper, which merges DINO's two global crops into one. Order of DINO: crop,
flip, colour jitter, grayscale, blur, solarize. Same distribution as torchvision's transforms image by image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import kornia.augmentation as K
import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from pipeline.core.augment import CROP_RATIO, as_float, normalise, step_seed
from pipeline.core.crop_resize import crop_and_resize
from pipeline.core.device_copy import sent
from pipeline.core.train_config import BLUR_SIGMAS, MultiCropConfig, TrainConfig

_ADJUST = (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_saturation_with_gray_subtraction,
    adjust_hue,
)
"""With torchvision's meaning of the factors."""


@dataclass(frozen=True)
class View:
    """One kind of crop.

    Args:
        crops: of each image.
        size: pixels.
        scale: lowest and highest share of the area.
        blur_probability: of a crop.
        solarize_probability: of a crop.
    """

    crops: int
    size: int
    scale: tuple[float, float]
    blur_probability: float
    solarize_probability: float


class Draws(NamedTuple):
    """What is drawn for n crops, on the CPU.

    boxes int64 [n, 4] of left, top, width, height; mirrored, jittered, grey, blurred, solarized bool [n]; factors
    float32 [n, 4] of brightness, contrast and saturation (1: as it is) and hue (radians); order int64 [n, 4] in which
    these four are applied; sigma float32 [n], pixels.
    """

    boxes: Tensor
    mirrored: Tensor
    jittered: Tensor
    factors: Tensor
    order: Tensor
    grey: Tensor
    blurred: Tensor
    sigma: Tensor
    solarized: Tensor


class MultiCropAugmentation:
    """As `pipeline.core.augment.Augmentation`: global crops, then local ones.

    Args:
        config: input size, seed and `multi_crop`.
    """

    def __init__(self, config: TrainConfig) -> None:
        crops = config.multi_crop
        self._seed = config.seed
        self._colours = crops
        self._drawn: tuple[tuple[int, ...], list[Draws]] = ((), [])
        self.views = [
            View(1, config.input_size, crops.global_scale, crops.global_blur_probability, crops.solarize_probability)
        ]
        if crops.num_local:
            self.views.append(
                View(crops.num_local, crops.local_size, crops.local_scale, crops.local_blur_probability, 0.0)
            )

    def __call__(self, images: Tensor, epoch: int, step: int, part: int = 0, num_parts: int = 1) -> list[Tensor]:
        """As `Augmentation`."""
        pixels = as_float(images)
        count, _, height, width = pixels.shape
        outputs = []
        for view, drawn in zip(self.views, self._draws(epoch, step, count * num_parts, height, width), strict=True):
            share = count * view.crops
            mine = Draws(*(values[part * share : (part + 1) * share] for values in drawn))
            outputs.append(normalise(render(pixels, mine, view.size, self._colours)))
        return outputs

    def _draws(self, epoch: int, step: int, num_images: int, height: int, width: int) -> list[Draws]:
        """The draws of a global batch by view; kept until the next step, since every forward takes its part of them."""
        key = (epoch, step, num_images, height, width)
        if self._drawn[0] != key:
            with torch.random.fork_rng(devices=[]):  # kornia draws from the global generator of the CPU
                torch.manual_seed(step_seed(self._seed, epoch, step))
                self._drawn = (key, [draw(view, self._colours, num_images, height, width) for view in self.views])
        return self._drawn[1]


def draw(view: View, colours: MultiCropConfig, num_images: int, height: int, width: int) -> Draws:
    """The draws of all crops of a view for images of `height` x `width` pixels, from torch's global CPU generator."""
    count = num_images * view.crops
    generator = K.RandomResizedCrop((view.size, view.size), scale=view.scale, ratio=CROP_RATIO)
    corners = generator.forward_parameters(torch.Size((count, 3, height, width)))["src"].long()
    first, last = corners[:, 0], corners[:, 2]  # of the box's pixels, both inside
    spread = torch.tensor([colours.brightness, colours.contrast, colours.saturation, colours.hue * 2 * math.pi])
    factors = torch.tensor([1.0, 1.0, 1.0, 0.0]) + (torch.rand(count, 4) * 2 - 1) * spread
    low, high = colours.blur_sigma

    def chance(probability: float) -> Tensor:
        return torch.rand(count) < probability

    return Draws(
        boxes=torch.cat([first, last - first + 1], dim=1),
        mirrored=chance(0.5),
        jittered=chance(colours.jitter_probability),
        factors=factors,
        order=torch.rand(count, 4).argsort(dim=1),
        grey=chance(colours.grayscale_probability),
        blurred=chance(view.blur_probability),
        sigma=low + torch.rand(count) * (high - low),
        solarized=chance(view.solarize_probability),
    )


def render(pixels: Tensor, draws: Draws, size: int, colours: MultiCropConfig) -> Tensor:
    """Images float [n, 3, H, W] in 0..1 to their crops [n * k, 3, size, size] in 0..1, as drawn."""
    device = pixels.device
    crops = crop_and_resize(pixels, sent(draws.boxes, device), size, sent(draws.mirrored, device))
    factors = sent(draws.factors, device)
    for position in range(4):
        for kind, adjust in enumerate(_ADJUST):
            chosen = _rows(draws.jittered & (draws.order[:, position] == kind), device)
            if len(chosen):
                crops[chosen] = adjust(crops[chosen], factors[:, kind][chosen]).clamp(0, 1)
    grey = _rows(draws.grey, device)
    crops[grey] = rgb_to_grayscale(crops[grey]).expand(-1, 3, -1, -1)
    blurred = _rows(draws.blurred, device)
    if len(blurred):
        kernel = 2 * math.ceil(BLUR_SIGMAS * colours.blur_sigma[1]) + 1
        sigma = draws.sigma[draws.blurred][:, None].expand(-1, 2)  # kornia looks at it, then sends it itself
        crops[blurred] = gaussian_blur2d(crops[blurred], (kernel, kernel), sigma)
    solarized = sent(draws.solarized, device)[:, None, None, None]
    return torch.where(solarized & (crops >= 0.5), 1 - crops, crops)


def _rows(chosen: Tensor, device: torch.device) -> Tensor:
    """Row numbers of the true ones, on the device; how many there are is found on the CPU, or a GPU had to be asked."""
    return sent(chosen.nonzero()[:, 0], device)
