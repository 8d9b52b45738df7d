"""The spider plot: one axis per test set, one polygon per twin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from pipeline.core.plots import COLOURS, TEXT_COLOUR, new_figure, plain_label, png

if TYPE_CHECKING:
    from matplotlib.projections.polar import PolarAxes

MIN_AXES = 3
"""Fewer make no area."""


def spider_png(axes: Sequence[str], values: Mapping[str, Sequence[float]]) -> bytes:
    """Shares 0..1 around a circle, from 0 in the middle to the next tenth above the largest.

    Args:
        axes: at least `MIN_AXES` names, any text.
        values: twin (a key of `COLOURS`) -> its value on each axis.
    """
    assert len(axes) >= MIN_AXES and all(len(found) == len(axes) for found in values.values())
    figure = new_figure(6.6, 5.4)
    polar = cast("PolarAxes", figure.add_subplot(projection="polar"))
    angles = [2 * math.pi * position / len(axes) for position in range(len(axes))]
    for group, found in values.items():
        x, y = [*angles, angles[0]], [*found, found[0]]
        polar.plot(x, y, color=COLOURS[group], label=group, marker="o", markersize=4)
        polar.fill(x, y, color=COLOURS[group], alpha=0.12)
    top = min(1.0, math.ceil(10 * max(max(found) for found in values.values()) + 1e-9) / 10)
    polar.set_theta_offset(math.pi / 2)
    polar.set_theta_direction(-1)
    polar.set_ylim(0, top)
    step = 0.1 if top <= 0.5 else 0.2
    rings = [step * ring for ring in range(1, round(top / step) + 1)]
    polar.set_yticks(rings, [f"{100 * ring:.0f}" for ring in rings], color=TEXT_COLOUR, fontsize=8)
    # A name is text, never a formula: `$` would be parsed and fail.
    polar.set_xticks(angles, [plain_label(name) for name in axes], color=TEXT_COLOUR, fontsize=10, parse_math=False)
    polar.set_facecolor("none")
    polar.grid(alpha=0.3)
    polar.spines["polar"].set_color(TEXT_COLOUR)
    polar.spines["polar"].set_alpha(0.4)
    polar.legend(loc="upper left", bbox_to_anchor=(1.05, 1.05), frameon=False, labelcolor=TEXT_COLOUR)
    return png(figure)
