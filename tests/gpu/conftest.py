"""Tests that need a GPU: `python -m pytest -m gpu tests/gpu`. Where there is none, they are skipped."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
