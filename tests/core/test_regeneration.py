"""How far two pictures are apart; tests/jobs/test_regenerate.py makes images again for real."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.regeneration import MAX_PSNR_DB, psnr_db


def test_equal_pictures_get_the_highest_ratio() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert psnr_db(picture, picture.copy()) == MAX_PSNR_DB


@pytest.mark.parametrize(("difference", "expected"), [(1, 48.13), (255, 0.0), (16, 24.05)])
def test_a_constant_difference_has_its_known_ratio(difference: int, expected: float) -> None:
    dark = np.zeros((4, 4, 3), np.uint8)
    assert psnr_db(dark, np.full_like(dark, difference)) == pytest.approx(expected, abs=0.01)
