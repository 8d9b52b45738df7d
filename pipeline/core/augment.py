"""Images as the classifier sees them: random crops and flips for training, resize and centre crop for scoring."""

from __future__ import annotations

from typing import Protocol

import kornia.augmentation as K
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.core.identity import content_hash
from pipeline.core.train_config import TrainConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Normalisation of every input, as with the paper's released checkpoints, whatever the data set: a first layer with a
batch norm behind it does not care, and one convention lets those checkpoints be scored with the same code."""

CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop, torchvision's default."""


def normalise(images: Tensor) -> Tensor:
    """Images float [N, 3, H, W] in 0..1, less ImageNet's mean, over its standard deviation, as channels_last."""
    mean, std = (_channels(values, images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Three numbers as [1, 3, 1, 1], filled on the device: a copy from the CPU waits for all that a GPU has to do."""
    return torch.cat([torch.full((1, 1, 1, 1), value, device=device) for value in values], dim=1)


def as_float(images: Tensor) -> Tensor:
    """uint8 [N, H, W, 3] as float32 [N, 3, H, W] in 0..1."""
    return images.permute(0, 3, 1, 2).float() / 255


def eval_transform(images: Tensor, input_size: int, resize: int | None = None) -> Tensor:
    """The input for scoring: shorter side resized (bicubic, antialiased), centre crop, normalised.

    Args:
        images: uint8 [N, H, W, 3]. Square ones of `input_size` are not resampled.
        input_size: pixels of the crop.
        resize: pixels of the shorter side before it; default `input_size`, as the paper's released checkpoints are
            scored. The scripts of ImageNet-R and -A use 256 for crops of 224.

    Returns:
        float32 [N, 3, input_size, input_size], channels_last, on the images' device.
    """
    return normalise(resize_and_crop(as_float(images), input_size, resize))


def eval_crop(images: Tensor, input_size: int, resize: int | None = None) -> Tensor:
    """What the classifier will see, still as pixels: uint8 [N, H, W, 3] to uint8 [N, input_size, input_size, 3]."""
    crops = resize_and_crop(as_float(images), input_size, resize)
    return (crops * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def resize_and_crop(images: Tensor, size: int, resize: int | None = None) -> Tensor:
    """Images float [N, 3, H, W] in 0..1 to [N, 3, size, size]: shorter side to `resize` (default: size), then the
    centre. Sizes and corner are rounded as torchvision's Resize and CenterCrop round them.
    """
    height, width = images.shape[2:]
    shorter, wanted = min(height, width), resize or size
    assert wanted >= size, (wanted, size)
    if shorter != wanted:
        scaled = (wanted * height // shorter, wanted * width // shorter)
        images = F.interpolate(images, scaled, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    top, left = round((images.shape[2] - size) / 2), round((images.shape[3] - size) / 2)
    return images[:, :, top : top + size, left : left + size]


class Augmentation(Protocol):
    """Crops of training images, drawn per image and applied in one batch on the images' device.

    The draws of a step belong to the global batch, and a worker takes its part of them: they are the same for any
    number of workers, and for a run that was interrupted.
    """

    def __call__(self, images: Tensor, epoch: int, step: int, part: int = 0, num_parts: int = 1) -> list[Tensor]:
        """One part of a global batch, augmented and normalised.

        Args:
            images: uint8 [n, H, W, 3], part `part` of `num_parts` equal ones.
            epoch: 0-based.
            step: 0-based, of the epoch.
            part: of the global batch, 0-based.
            num_parts: that the batch is cut into: workers times forwards of each.

        Returns:
            For each resolution float32 [n * crops, 3, S, S], channels_last, the crops of an image side by side; the
            first has one crop of each image, of `input_size`.
        """


def step_seed(seed: int, epoch: int, step: int) -> int:
    """What the random generator of a step is set to."""
    return int(content_hash([seed, epoch, step])[:15], 16)


class PytorchAugmentation:
    """RandomResizedCrop and horizontal flip (kornia), as `Augmentation`.

    Args:
        config: input size, smallest crop and seed.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._seed = config.seed
        size = (config.input_size, config.input_size)
        self._crop = K.RandomResizedCrop(
            size, scale=(config.min_crop_scale, 1.0), ratio=CROP_RATIO, align_corners=False, cropping_mode="resample"
        )
        self._flip = K.RandomHorizontalFlip(p=0.5)

    def __call__(self, images: Tensor, epoch: int, step: int, part: int = 0, num_parts: int = 1) -> list[Tensor]:
        """As `Augmentation`."""
        output = as_float(images)
        count = len(output)
        shape = torch.Size((count * num_parts, *output.shape[1:]))
        rows = slice(part * count, (part + 1) * count)
        with torch.random.fork_rng(devices=[]):  # kornia draws from the global generator of the CPU
            torch.manual_seed(step_seed(self._seed, epoch, step))
            for operation in (self._crop, self._flip):
                drawn = operation.forward_parameters(shape)
                taken = {name: value if name == "forward_input_shape" else value[rows] for name, value in drawn.items()}
                output = operation(output, params=taken)
                shape = torch.Size((shape[0], *output.shape[1:]))
        return [normalise(output)]
