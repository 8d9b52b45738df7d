"""Scaling laws side by side: one table, one plot, and which recipe to take at which budget."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.core.scaling_law import MIN_SIZES, ScalingFit, ScalingLaw, crossings
from pipeline.core.text_table import markdown_cell, markdown_head, markdown_row

BUDGET_DOUBLINGS = 3
"""How far beyond the largest measured size the advice goes: three doublings are a guess already."""
REAL = "real images"
"""Name of the twins' curve: it costs no generation, so it is no choice at any budget."""
SCALING_COLUMNS = (
    "recipe", "floor of the error", "exponent", "at the largest size", "next doubling adds", "1,000 more images add",
    "the next USD adds",
)  # fmt: skip
CHOSEN_ON_TEST = (
    "The recipe to take is chosen by accuracy on these very test images, so its expected top-1 is a little too good."
)


@dataclass(frozen=True)
class Curve:
    """One recipe.

    Args:
        name: any text.
        fit: of its accuracies by number of images (of all classes together).
        usd_per_image: price of making one, 0 when nobody sends a bill or nobody knows.
    """

    name: str
    fit: ScalingFit
    usd_per_image: float = 0.0

    @property
    def largest(self) -> int:
        """Most images it was measured with."""
        return max(self.fit.measured)


def curve_facts(curve: Curve) -> dict[str, Any]:
    """The figures of one curve, JSON-able; intervals hold 95 % of the resampled laws."""
    law, twice, size = curve.fit.law, 2 * curve.largest, curve.largest

    def gain(one: ScalingLaw) -> float:
        return one.accuracy(twice) - one.accuracy(size)

    return {
        "name": curve.name,
        "measured": {str(n): list(values) for n, values in sorted(curve.fit.measured.items())},
        "floor": law.floor,
        "floor_interval": curve.fit.interval(lambda one: one.floor),
        "exponent": law.exponent,
        "exponent_interval": curve.fit.interval(lambda one: one.exponent),
        "residual": curve.fit.residual,
        "largest": size,
        "accuracy_at_largest": law.accuracy(size),
        "next_doubling": gain(law),
        "next_doubling_interval": curve.fit.interval(gain),
        "next_1000_images": law.accuracy(size + 1000) - law.accuracy(size),
        "next_usd": law.accuracy(size + 1 / curve.usd_per_image) - law.accuracy(size) if curve.usd_per_image else None,
    }


def advice(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """The best recipe at every budget from the smallest measured size on, doubling, and how sure that is.

    Returns:
        Dicts with images, best (name), accuracy (of its fitted law), runner_up (name or None), `sure` (share of draws
        of resampled laws in which the best one leads all others; None without others, or with one seed) and `measured`
        (whether the budget lies within what was measured).
    """
    made = [curve for curve in curves if curve.name != REAL]
    if not made:
        return []
    images = min(min(curve.fit.measured) for curve in made)
    most = max(curve.largest for curve in made)
    found = []
    while images <= most * 2**BUDGET_DOUBLINGS:
        at = float(images)
        leads = _leads(made, at)
        ranked = sorted(range(len(made)), key=lambda row: (-leads[row], -made[row].fit.law.accuracy(at)))
        best, other = made[ranked[0]], made[ranked[1]] if len(ranked) > 1 else None
        sure = (leads[ranked[0]] or None) if other else None
        found.append(
            {
                "images": images,
                "best": best.name,
                "accuracy": best.fit.law.accuracy(at),
                "runner_up": other.name if other else None,
                "sure": sure,
                "measured": images <= most,
            }
        )
        images *= 2
    return found


def _leads(curves: Sequence[Curve], images: float) -> list[float]:
    """In which share of the draws of resampled laws each curve is the best of all; zeros with one seed: no spread.

    The laws that fit best alone may put first what most draws put second: with few sizes a floor is hardly known.
    """
    draws = min(len(curve.fit.resampled) for curve in curves)
    if draws < 2:
        return [0.0] * len(curves)
    accuracies = [[law.accuracy(images) for law in curve.fit.resampled[:draws]] for curve in curves]
    first = np.argmax(accuracies, axis=0)
    return [float(np.mean(first == row)) for row in range(len(curves))]


def all_crossings(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Where two curves meet, from the smallest measured size to three doublings beyond the largest."""
    low = min(min(curve.fit.measured) for curve in curves)
    high = max(curve.largest for curve in curves) * 2**BUDGET_DOUBLINGS
    return [
        {"one": one.name, "other": other.name, "images": images}
        for one, other in combinations(curves, 2)
        for images in crossings(one.fit.law, other.fit.law, low, high)
    ]


def scaling_markdown(curves: Sequence[Curve]) -> str:
    """The laws, the crossings and the advice as text for people."""
    text = markdown_head(SCALING_COLUMNS)
    for curve in curves:
        facts = curve_facts(curve)
        cells = [
            curve.name,
            f"{facts['floor']:.3f} {_band(facts['floor_interval'])}",
            f"{facts['exponent']:.2f} {_band(facts['exponent_interval'], 2)}",
            f"{facts['accuracy_at_largest']:.3f} at {facts['largest']:,}",
            f"{facts['next_doubling']:+.3f} {_band(facts['next_doubling_interval'])}",
            f"{facts['next_1000_images']:+.4f}",
            "" if facts["next_usd"] is None else f"{facts['next_usd']:+.2g}",
        ]
        text.append(markdown_row(cells))
    text += ["", "Brackets hold 95 % of the laws that the spread of the seeds allows."]
    if any(len(curve.fit.measured) == MIN_SIZES for curve in curves):
        text.append("Three sizes for three unknowns: the law goes through the points, and nothing tests its form.")
    text.append("")
    meet = [(*map(markdown_cell, (found["one"], found["other"])), found["images"]) for found in all_crossings(curves)]
    text += [f"* {one} and {other} meet at about {images:,.0f} images." for one, other, images in meet] or [
        "* No two curves meet in this range."
    ]
    lines = advice(curves)
    if any(line["runner_up"] for line in lines):
        text += ["", CHOSEN_ON_TEST]
    text += ["", *markdown_head(["budget, images", "take", "expected top-1", "ahead of", "sure"])]
    for line in lines:
        beyond = "" if line["measured"] else " (beyond what was measured)"
        sure = "" if line["sure"] is None else f"{line['sure']:.0%}"
        cells = [f"{line['images']:,}{beyond}", line["best"], f"{line['accuracy']:.3f}", line["runner_up"] or "", sure]
        text.append(markdown_row(cells))
    return "\n".join(text) + "\n"


def _band(interval: Sequence[float], digits: int = 3) -> str:
    return f"[{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def scaling_png(curves: Sequence[Curve], title: str) -> bytes:
    """Means of the seeds, fitted laws with their bands, and dashed what lies beyond the measured sizes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it would open a window where there is one
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, parse_math=False)
    for number, curve in enumerate(curves):
        colour = f"C{number % 10}"
        sizes = sorted(curve.fit.measured)
        means = [float(np.mean(curve.fit.measured[size])) for size in sizes]
        axes.plot(sizes, means, "o", color=colour)
        inside = np.geomspace(sizes[0], sizes[-1], 60)
        beyond = np.geomspace(sizes[-1], 4 * sizes[-1], 30)
        for x, line in ((inside, "-"), (beyond, "--")):
            label = curve.name if line == "-" else None
            axes.plot(x, [curve.fit.law.accuracy(n) for n in x], line, color=colour, label=label)
            bands = [curve.fit.interval(lambda law, n=n: law.accuracy(n)) for n in x]  # type: ignore[misc]
            axes.fill_between(x, *np.array(bands).T, color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.minorticks_off()
    marks = sorted({size for curve in curves for size in curve.fit.measured} | {4 * max(c.largest for c in curves)})
    axes.set_xticks(marks, [f"{mark:,}" for mark in marks], rotation=30, ha="right")
    axes.set_xlabel("images (log scale)")
    axes.set_ylabel("top-1 on real test images")
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize="small").get_texts():
        text.set_parse_math(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    return out.getvalue()
