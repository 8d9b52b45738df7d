from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.validation import count_confusions, validate
from tests.image_sets import small_config


class Brightness(nn.Module):
    """Says class 1 for bright images, else 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        mean = images.mean(dim=(1, 2, 3)) * self.weight
        return torch.stack([-mean, mean], dim=1)


def test_accuracy_counts_every_image_the_last_batch_too() -> None:
    pixels = np.zeros((501, 32, 32, 3), np.uint8)
    pixels[:300] = 255
    labels = np.zeros(501, np.int64)
    labels[:200] = 1
    found = validate(Brightness(), (pixels, labels), small_config().train)
    assert found["val_accuracy"] == pytest.approx(401 / 501) and found["val_loss"] > 0


def test_confusions_have_a_row_for_each_true_class() -> None:
    pixels = np.zeros((501, 32, 32, 3), np.uint8)
    pixels[:300] = 255
    labels = np.zeros(501, np.int64)
    labels[:200] = 1
    found = count_confusions(Brightness(), (pixels, labels), small_config().train, num_classes=3)
    assert found.tolist() == [[201, 100, 0], [0, 200, 0], [0, 0, 0]]
