"""Every test set and every corruption as lines of one table and axes of one plot, from the numbers of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.corruption_names import FAMILIES
from pipeline.core.set_scores import METRICS

Spread = tuple[float, float | None]
"""Mean over seeds, and standard deviation (None for one seed); shares 0..1."""


@dataclass(frozen=True)
class ShiftRow:
    """One metric of one test set.

    Args:
        title: of the set.
        images: scored.
        classes: of the run that it shows.
        metric: in words.
        is_headline: the metric that stands for the set in the plot.
        values: twin -> mean and deviation over seeds.
        gap: real less synthetic; None without both.
    """

    title: str
    images: int
    classes: int
    metric: str
    is_headline: bool
    values: Mapping[str, Spread]
    gap: float | None


def shift_rows(metrics: Mapping[str, Any]) -> list[ShiftRow]:
    """The lines of all test sets, set by set, its headline first; none when there is only a whole main set."""
    sets = metrics.get("test_sets", {})
    rows = []
    for one in sets.values():
        names = list(next(iter(one["groups"].values())))
        for name in sorted(names, key=lambda metric: (metric != one["headline"], list(METRICS).index(metric))):
            values = {group: (found[name]["mean"], found[name]["std"]) for group, found in one["groups"].items()}
            rows.append(
                ShiftRow(
                    title=one["title"],
                    images=one["images"],
                    classes=one["classes"],
                    metric=METRICS[name],
                    is_headline=name == one["headline"],
                    values=values,
                    gap=one["gap"] and one["gap"][name],
                )
            )
    is_plain = len(sets) == 1 and all("masked" not in one["headline"] for one in sets.values())
    return [] if is_plain else rows


def spider_values(metrics: Mapping[str, Any]) -> tuple[list[str], dict[str, list[float]]]:
    """Axes of the plot, and each twin's mean on them (0..1): headlines of the sets, then families of corruptions."""
    sets, corruptions = metrics.get("test_sets", {}), metrics.get("corruptions")
    axes = [one["title"] for one in sets.values()]
    values = {
        group: [one["groups"][group][one["headline"]]["mean"] for one in sets.values()] for group in metrics["groups"]
    }
    if corruptions:
        families = [family for family in FAMILIES if family in next(iter(corruptions["groups"].values()))]
        axes += families
        for group, found in corruptions["groups"].items():
            values[group] += [found[family]["mean"] for family in families]
    return axes, values
