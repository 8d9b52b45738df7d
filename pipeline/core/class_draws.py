"""Rows drawn from each class by a seed: test parts of sets that come without one, validation parts of a search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def drawn_from_each_class(labels: NDArray[np.int64], number: Callable[[int], int], seed: int) -> NDArray[np.bool_]:
    """Drawn rows, bool [n].

    Args:
        labels: int64 [n].
        number: how many rows are drawn from a class of so many.
        seed: of the draw.
    """
    drawn = np.zeros(len(labels), bool)
    generator = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = generator.permutation(np.flatnonzero(labels == label))
        drawn[rows[: number(len(rows))]] = True
    return drawn
