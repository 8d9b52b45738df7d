"""What a training's config refuses before any image is read."""

from __future__ import annotations

import pytest
import torch

from pipeline.core.train_config import TrainConfig


def test_a_seed_is_one_that_torch_takes() -> None:
    largest = TrainConfig(seed=2**64 - 1).seed
    torch.Generator().manual_seed(largest)
    with pytest.raises(ValueError, match="less than 18446744073709551616"):
        TrainConfig(seed=largest + 1)
