"""How the sides of a benchmark take turns, and how their ratios are taken."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby

from pipeline.stages.bench_sides import Measured


@dataclass(frozen=True)
class Ratio:
    """One ratio over all repeats."""

    median: float
    lowest: float
    highest: float


def turns(
    order: Sequence[str],
    on_ray: Mapping[str, int],
    repeats: int,
    session: Callable[[int], AbstractContextManager[None]],
) -> Iterator[tuple[int, str]]:
    """(repeat, side) of every side in each repeat, each second one in the other order; a Ray runs for `on_ray` only.

    A Ray that idles would still take some of a small machine from the sides without one.

    Args:
        order: the sides.
        on_ray: side -> CPUs that its Ray plans with; neighbours with equally many share one.
        repeats: of every side.
        session: starts a Ray with so many CPUs.
    """
    for repeat in range(repeats):
        for cpus, sides in groupby(order if repeat % 2 == 0 else order[::-1], key=on_ray.get):
            with nullcontext() if cpus is None else session(cpus):
                for side in sides:
                    yield repeat, side


def take_ratio(ours: Sequence[Measured], peer: Sequence[Measured]) -> Ratio:
    """Median and spread over repeats of the two rates of the same repeat."""
    values = [mine.images_per_s / other.images_per_s for mine, other in zip(ours, peer, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))
