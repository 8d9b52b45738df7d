import io
import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.core.plots import (
    COLOURS,
    MAX_NAME_LENGTH,
    confusion_png,
    curves_png,
    plain_label,
    scatter_png,
    spider_png,
)


def size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.size


@pytest.mark.parametrize("count", [2, 10, 100])
def test_confusion_of_any_number_of_classes(count: int):
    data = confusion_png(np.eye(count, dtype=np.int64) * 5, [f"class {i}" for i in range(count)])
    assert min(size(data)) > 300 and len(data) < 300_000


def test_names_are_text_and_never_formulas():
    names = ["$\\frac{1}", "a_b^c", "<script>", "x\ny\x00", "日本", "$"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size(confusion_png(np.eye(6, dtype=np.int64), names))


def test_a_class_without_images_is_drawn():
    assert size(confusion_png(np.zeros((3, 3), np.int64), ["a", "b", "c"]))


def test_curves_of_both_twins():
    epochs = [{"epoch": e, "loss": 1 / e, "accuracy": 0.1 * e} for e in range(1, 6)]
    assert size(curves_png([("synthetic", epochs), ("real", epochs), ("real", epochs)]))


def test_long_names_are_cut():
    assert plain_label("short") == "short"
    assert len(plain_label("x" * 100)) == MAX_NAME_LENGTH


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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spider_png([name, "b", "c"], {"real": [0.0, 0.0, 0.0]}).startswith(b"\x89PNG")


def test_maps_show_every_panel_and_take_names_as_text() -> None:
    places = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    labels = np.repeat(np.arange(20), 2)
    names = ["$\\frac{1}{2}$", "<b>", *(f"class {n}" for n in range(18))]
    heights = {}
    for count in (1, 3, 4):
        heights[count] = size(scatter_png([(f"$x_{n}", places) for n in range(count)], labels, names))[1]
    assert heights[1] == heights[3] < heights[4]  # three in a line
    assert scatter_png([("a", places)], labels, names) != scatter_png([("a", places)], labels[::-1].copy(), names)
