"""The test sets that are known by name: which classes each shows, how it is scored, where people get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, cast

from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config_loading import load_yaml
from pipeline.core.small_tables import ASSETS

FASHION_MNIST = "fashion_mnist"
IN_DISTRIBUTION = "imagenet_val"
"""The set whose images an anomaly set is told apart from."""
TABLE = ASSETS / "test_sets" / "sets.yaml"


@dataclass(frozen=True)
class SetSpec:
    """A test set as its makers describe it.

    Args:
        name: in `evaluate.test_sets`.
        title: for tables and plots.
        metric: `accuracy`, or `anomaly` for images of none of the classes.
        wnids: the classes that it shows (of an anomaly set: that it is told apart from); None: those of the run.
        numbered_by: what the whole-number labels of folders and columns mean; None: the classes of the run.
        get: where people get it.
    """

    name: str
    title: str
    metric: Literal["accuracy", "anomaly"] = "accuracy"
    wnids: tuple[str, ...] | None = None
    numbered_by: tuple[str, ...] | None = None
    get: str = ""

    def labels(self, classes: ClassTable) -> list[int]:
        """Labels of the run's classes that the set shows, ascending."""
        shown = None if self.wnids is None else set(self.wnids)
        return [label for label, wnid in enumerate(classes.wnids) if shown is None or wnid in shown]


@cache
def known_sets() -> dict[str, SetSpec]:
    """The sets of `TABLE` by name, in its order."""
    every = tuple(load_class_table("imagenet1k").wnids)
    return {
        name: SetSpec(
            name=name,
            title=entry["title"],
            metric=cast(Literal["accuracy", "anomaly"], entry.get("metric", "accuracy")),
            wnids=tuple(_wnids(entry["classes"])) if "classes" in entry else every,
            numbered_by=every,
            get=f"{entry['about']}; {entry['get']}",
        )
        for name, entry in load_yaml(TABLE).items()
    }


def spec_of(name: str) -> SetSpec:
    """A known set, or for any other name a set of the run's own classes."""
    return known_sets().get(name) or SetSpec(name, name)


def _wnids(file: str) -> Sequence[str]:
    lines = (TABLE.parent / file).read_text(encoding="ascii").splitlines()
    return [line for line in lines if not line.startswith("#")]
