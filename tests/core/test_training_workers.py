"""The global batch does not depend on the number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bare_training import train_in_processes
from tests.image_sets import small_config


def losses(directory: Path, **train: Any) -> list[float]:
    directory.mkdir()
    config = small_config(images_per_class=5, data="real", **train)
    return [metrics["loss"] for metrics in train_in_processes(config, directory)]


def test_two_workers_give_the_losses_of_one_with_two_forwards(tmp_path: Path) -> None:
    # Each forward normalises its own 8 images in both, so the batch norms agree too.
    two = losses(tmp_path / "two", num_workers=2)
    one = losses(tmp_path / "one", num_workers=1, max_batch_per_worker=8)
    assert two == pytest.approx(one, rel=1e-3)
    assert two[1] != two[0]
