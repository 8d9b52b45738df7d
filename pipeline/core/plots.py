"""The report's plots as PNG bytes: transparent, in colours that read on white and on black."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

COLOURS = {"synthetic": "#3b82f6", "mixed": "#8b5cf6", "real": "#f08a24"}
"""Of the twins, in every plot and bar; apart also for people who do not see red and green."""
TEXT_COLOUR = "#7d8590"
MAX_NAMED_CLASSES = 40
"""Beyond it, a confusion matrix has neither names nor numbers."""
MAX_NAME_LENGTH = 24
MAX_LEGEND = 20
"""Classes that a map names; more have no colour of their own."""
DPI = 130
MIN_AXES = 3
"""Of a spider plot; fewer make no area."""


def confusion_png(confusion: NDArray[np.int64], names: Sequence[str]) -> bytes:
    """A confusion matrix, each row divided by its class's number of images.

    Args:
        confusion: int64 [C, C]; rows are true classes, columns predictions.
        names: of the classes, any text.
    """
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    count = len(names)
    named = count <= MAX_NAMED_CLASSES
    side = 2.2 + 0.42 * count if named else 8.0
    figure = _figure(side, side)
    axes = figure.subplots()
    axes.imshow(_shade(shares))
    axes.set_xlabel("predicted", color=TEXT_COLOUR)
    axes.set_ylabel("true", color=TEXT_COLOUR)
    _style(axes)
    if named:
        labels = [plain_label(name) for name in names]
        # A class name is text, never a formula: `$` would be parsed and fail.
        axes.set_xticks(range(count), labels, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        axes.set_yticks(range(count), labels, parse_math=False)
        for true, predicted in np.argwhere(shares >= 0.005):
            share = shares[true, predicted]
            shade = "white" if share > 0.35 else TEXT_COLOUR
            axes.text(predicted, true, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=shade)
    return _png(figure)


def _shade(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGBA of shares (0..1): nothing at 0, so that the page's own ground shows, blue at 1."""
    from matplotlib.colors import to_rgb

    rgb = np.broadcast_to(to_rgb("#2563eb"), (*shares.shape, 3))
    return np.concatenate([rgb, np.sqrt(shares)[..., None]], axis=-1)


def curves_png(histories: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> bytes:
    """Training loss and training accuracy by epoch.

    Args:
        histories: (group, epochs) of each model; group is a key of `COLOURS`, an epoch has `epoch`, `loss`, `accuracy`.
    """
    figure = _figure(9.0, 3.2)
    for axes, key, title in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("training loss", "training accuracy"), strict=True
    ):
        seen: set[str] = set()
        for group, epochs in histories:
            label = None if group in seen else group
            seen.add(group)
            x, y = [row["epoch"] for row in epochs], [row[key] for row in epochs]
            axes.plot(x, y, color=COLOURS[group], label=label, marker="." if len(x) < 40 else "", alpha=0.85)
        axes.set_title(title, color=TEXT_COLOUR, fontsize=10)
        axes.set_xlabel("epoch", color=TEXT_COLOUR)
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False, labelcolor=TEXT_COLOUR)
        _style(axes)
    return _png(figure)


def spider_png(axes: Sequence[str], values: Mapping[str, Sequence[float]]) -> bytes:
    """Shares 0..1 around a circle, from 0 in the middle to the next tenth above the largest.

    Args:
        axes: at least `MIN_AXES` names, any text.
        values: twin (a key of `COLOURS`) -> its value on each axis.
    """
    assert len(axes) >= MIN_AXES and all(len(found) == len(axes) for found in values.values())
    figure = _figure(8.0, 5.0)
    figure.set_layout_engine("none")
    # In a fixed place: the automatic layout does not count the names around a circle and cuts them.
    polar = cast("PolarAxes", figure.add_axes((0.25, 0.09, 0.5, 0.82), projection="polar"))
    angles = [2 * math.pi * position / len(axes) for position in range(len(axes))]
    for group, found in values.items():
        x, y = [*angles, angles[0]], [*found, found[0]]
        polar.plot(x, y, color=COLOURS[group], label=group, marker="o", markersize=4)
        polar.fill(x, y, color=COLOURS[group], alpha=0.12)
    top = min(1.0, math.ceil(10 * max(max(found) for found in values.values()) + 1e-9) / 10)
    polar.set_theta_offset(math.pi / 2)
    polar.set_theta_direction(-1)
    polar.set_rlabel_position(180 / len(axes))
    polar.set_ylim(0, top)
    step = 0.1 if top <= 0.5 else 0.2
    rings = [step * ring for ring in range(1, round(top / step) + 1)]
    polar.set_yticks(rings, [f"{100 * ring:.0f}" for ring in rings], color=TEXT_COLOUR, fontsize=8)
    polar.set_xticks(angles, [""] * len(angles))
    for name, angle in zip(axes, angles, strict=True):
        side = math.sin(angle)  # the angle is clockwise from above: names stand beside the circle, not on it
        ha = "center" if abs(side) < 0.1 else "left" if side > 0 else "right"
        text = polar.text(angle, 1.07 * top, plain_label(name), ha=ha, va="center", color=TEXT_COLOUR, fontsize=10)
        text.set_parse_math(False)  # a name is text, never a formula: `$` would be parsed and fail
    polar.set_facecolor("none")
    polar.grid(alpha=0.3)
    polar.spines["polar"].set_color(TEXT_COLOUR)
    polar.spines["polar"].set_alpha(0.4)
    figure.legend(loc="upper right", frameon=False, labelcolor=TEXT_COLOUR)
    return _png(figure)


def scatter_png(
    panels: Sequence[tuple[str, NDArray[np.float32]]], labels: NDArray[np.int64], names: Sequence[str]
) -> bytes:
    """Maps of the same images by several encoders, side by side, coloured by class.

    Args:
        panels: (title, places float32 [n, 2]) of each map.
        labels: int64 [n].
        names: of the classes, any text; up to `MAX_LEGEND` get a legend.
    """
    from matplotlib import colormaps

    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = _figure(4.4 * columns, 4.4 * lines + 0.9)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    palette = colormaps["tab20"]
    order = [*range(0, 20, 2), *range(1, 20, 2)]  # tab20 pairs a dark with a light one: ten dark ones first
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, places) in zip(grid, panels, strict=False):
        for label in np.unique(labels):
            own = places[labels == label]
            colour = palette(order[label % 20])
            axes.scatter(own[:, 0], own[:, 1], s=5, color=colour, linewidths=0, label=plain_label(names[label]))
        axes.set_title(title, color=TEXT_COLOUR, fontsize=10, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
        _style(axes)
    if len(names) <= MAX_LEGEND:
        marks, texts = grid[0].get_legend_handles_labels()
        legend = figure.legend(
            marks, texts, loc="outside lower center", ncols=5, frameon=False, markerscale=3, labelcolor=TEXT_COLOUR
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return _png(figure)


def plain_label(name: str) -> str:
    """A name that fits beside an axis: one line of printable characters, at most `MAX_NAME_LENGTH`."""
    text = "".join(character if character.isprintable() else " " for character in name)
    return text if len(text) <= MAX_NAME_LENGTH else text[: MAX_NAME_LENGTH - 1] + "…"


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it would open a window where there is one
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=TEXT_COLOUR, labelsize=9)
    for spine in axes.spines.values():
        spine.set_color(TEXT_COLOUR)
        spine.set_alpha(0.4)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        # Signs that the font lacks are drawn as boxes; the page itself names every class in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=DPI, transparent=True, metadata={"Software": None})
    return out.getvalue()
