"""How the sides of a benchmark take turns, and how their ratios are taken."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Sequence
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
    order: Sequence[str], on_ray: Collection[str], repeats: int, session: Callable[[], AbstractContextManager[None]]
) -> Iterator[tuple[int, str]]:
    """(repeat, side) of every side in each repeat, each second one in the other order; a Ray runs for `on_ray` only.

    A Ray that idles would still take some of a small machine from the sides without one.
    """
    for repeat in range(repeats):
        for needs_ray, sides in groupby(order if repeat % 2 == 0 else order[::-1], key=lambda side: side in on_ray):
            with session() if needs_ray else nullcontext():
                for side in sides:
                    yield repeat, side


def take_ratio(ours: Sequence[Measured], peer: Sequence[Measured]) -> Ratio:
    """Median and spread over repeats of the two rates of the same repeat."""
    values = [mine.images_per_s / other.images_per_s for mine, other in zip(ours, peer, strict=True)]
    return Ratio(statistics.median(values), min(values), max(values))
