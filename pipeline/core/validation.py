"""The accuracy that a search looks at after every epoch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

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
    network.eval()
    device = next(network.parameters()).device
    dtype = AUTOCAST[settings.mixed_precision]
    pixels, labels = images
    correct, loss = 0.0, 0.0
    for start in range(0, len(labels), BATCH_SIZE):
        part = torch.tensor(pixels[start : start + BATCH_SIZE], device=device)  # Ray's arrays are read-only
        truth = torch.tensor(labels[start : start + BATCH_SIZE], device=device)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits = network(eval_transform(part, settings.input_size))
        loss += float(F.cross_entropy(logits.float(), truth, reduction="sum"))
        correct += float((logits.argmax(1) == truth).sum())
    return {"val_accuracy": correct / len(labels), "val_loss": loss / len(labels)}
