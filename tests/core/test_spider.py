from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.core.plots import COLOURS
from pipeline.core.spider import spider_png


def coloured(data: bytes, group: str) -> int:
    """Pixels of a twin's line."""
    from matplotlib.colors import to_rgb

    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
    near = np.abs(image[..., :3] - 255 * np.array(to_rgb(COLOURS[group]))).max(axis=2) < 12
    return int((near & (image[..., 3] > 200)).sum())


def test_each_twin_has_its_polygon_and_a_better_one_a_longer_one() -> None:
    axes = ["val", "V2", "Sketch", "R", "A"]
    plot = spider_png(axes, {"synthetic": [0.2] * 5, "real": [0.8] * 5})
    assert 300 < coloured(plot, "synthetic") < coloured(plot, "real")
    assert coloured(spider_png(axes, {"real": [0.5] * 5}), "synthetic") == 0


@pytest.mark.parametrize("name", ["$\\frac{1}$", "a\nb" * 40, "<b>", ""])
def test_any_name_is_drawn(name: str) -> None:
    assert spider_png([name, "b", "c"], {"real": [0.0, 0.0, 0.0]}).startswith(b"\x89PNG")
