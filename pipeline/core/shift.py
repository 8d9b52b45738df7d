"""Every test set and every corruption as lines of one table and axes of one plot, from the numbers of metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.core.corruption_names import FAMILIES
from pipeline.core.model_identity import GROUPS
from pipeline.core.set_scores import METRICS
from pipeline.core.test_sets import known_sets

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
    sets = _in_order(metrics)
    rows = []
    for one in sets:
        names = list(next(iter(one["groups"].values())))
        for name in sorted(names, key=lambda metric: (metric != one["headline"], list(METRICS).index(metric))):
            found = {group: one["groups"][group][name] for group in GROUPS if group in one["groups"]}
            values = {group: (spread["mean"], spread["std"]) for group, spread in found.items()}
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
    is_plain = len(sets) == 1 and "masked" not in sets[0]["headline"]
    return [] if is_plain else rows


def spider_values(metrics: Mapping[str, Any]) -> tuple[list[str], dict[str, list[float]]]:
    """Axes of the plot, and each twin's mean on them (0..1): headlines of the sets, then families of corruptions."""
    sets = _in_order(metrics)
    groups = [group for group in GROUPS if group in metrics["groups"]]
    axes = [one["title"] for one in sets]
    values = {group: [one["groups"][group][one["headline"]]["mean"] for one in sets] for group in groups}
    if corruptions := metrics.get("corruptions"):
        families = [family for family in FAMILIES if family in corruptions["groups"][groups[0]]]
        axes += families
        for group in groups:
            values[group] += [corruptions["groups"][group][family]["mean"] for family in families]
    return axes, values


def _in_order(metrics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The main set, the known ones in their table's order, then others by name: metrics.json sorts its keys."""
    sets, known = metrics.get("test_sets", {}), list(known_sets())

    def place(name: str) -> tuple[bool, int, str]:
        return name != metrics["main"], known.index(name) if name in known else len(known), name

    return [sets[name] for name in sorted(sets, key=place)]
