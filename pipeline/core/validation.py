"""What a network makes of validation images: the accuracy that a search looks at after every epoch, and confusions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.core.augment import eval_transform
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_images import Arrays
from pipeline.core.training_state import AUTOCAST

BATCH_SIZE = 250
"""Images per forward."""


@torch.inference_mode()
def validate(network: nn.Module, images: Arrays, settings: TrainConfig) -> dict[str, float]:
    """`val_accuracy` (0..1) and `val_loss` of a network, which is left in evaluation mode.

    Args:
        network: on its device.
        images: uint8 [N, H, W, 3] and labels int64 [N].
        settings: input size and precision.
    """
    correct, loss = 0.0, 0.0
    for logits, truth in _answers(network, images, settings):
        loss += float(F.cross_entropy(logits, truth, reduction="sum"))
        correct += float((logits.argmax(1) == truth).sum())
    return {"val_accuracy": correct / len(images[1]), "val_loss": loss / len(images[1])}


@torch.inference_mode()
def count_confusions(network: nn.Module, images: Arrays, settings: TrainConfig, num_classes: int) -> NDArray[np.int64]:
    """How often each class is taken for each, int64 [C, C], rows are true classes; arguments as of `validate`."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    for logits, truth in _answers(network, images, settings):
        np.add.at(counts, (truth.cpu().numpy(), logits.argmax(1).cpu().numpy()), 1)
    return counts


def _answers(network: nn.Module, images: Arrays, settings: TrainConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits float32 [n, C], labels int64 [n]) of all images, batch by batch, on the network's device."""
    network.eval()
    device = next(network.parameters()).device
    dtype = AUTOCAST[settings.mixed_precision]
    pixels, labels = images
    for start in range(0, len(labels), BATCH_SIZE):
        part = torch.tensor(pixels[start : start + BATCH_SIZE], device=device)  # Ray's arrays are read-only
        truth = torch.tensor(labels[start : start + BATCH_SIZE], device=device)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = network(eval_transform(part, settings.input_size))
        yield logits.float(), truth
