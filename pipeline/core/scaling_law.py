"""How accuracy grows with the number of images: a power law with an offset, fitted with its uncertainty.

    error(n) = floor + amplitude * (n / n0) ** -exponent,   accuracy(n) = 1 - error(n)

The form of Rosenfeld et al., "A Constructive Prediction of the Generalization Error Across Scales" (ICLR 2020,
https://arxiv.org/abs/1909.12673), for the number of images alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SIZES = 3
"""Three unknowns need as many sizes; with no more than that the law goes through the points and tests nothing."""
NUM_RESAMPLES = 400
MIN_EXPONENT, MAX_EXPONENT = 0.02, 3.0
"""Measured exponents lie below 1. Beyond 3 the curve is a step; below 0.02 it is a logarithm over any range."""
GRID = 128
REFINEMENTS = 3
SMALLEST_SPREAD = 1e-4
"""Of accuracy: so that seeds that happen to agree do not outweigh all other sizes."""

Floats = NDArray[np.float64]
Measured = Mapping[int, Sequence[float]]
"""Number of images -> top-1 accuracy (0..1) of every seed."""


@dataclass(frozen=True)
class ScalingLaw:
    """One curve.

    Args:
        floor: error (0..1) that no number of images goes below.
        amplitude: error above the floor at `reference` images.
        exponent: how fast it falls; 0.5 halves the rest at four times the images.
        reference: number of images that `amplitude` speaks of.
    """

    floor: float
    amplitude: float
    exponent: float
    reference: float

    def accuracy(self, images: float) -> float:
        """Expected top-1 (0..1) with so many images."""
        return 1 - self.floor - self.amplitude * math.pow(images / self.reference, -self.exponent)

    def marginal(self, images: float) -> float:
        """Accuracy that one more image adds."""
        slope = math.pow(images / self.reference, -self.exponent - 1)
        return self.exponent * self.amplitude / self.reference * slope


@dataclass(frozen=True)
class ScalingFit:
    """A fitted law and what else the spread of the seeds would have allowed.

    Args:
        law: fitted to the means.
        resampled: laws fitted to means drawn from the seeds' spread.
        measured: what it was fitted to.
    """

    law: ScalingLaw
    resampled: tuple[ScalingLaw, ...]
    measured: Measured

    def interval(self, of: Callable[[ScalingLaw], float], level: float = 0.95) -> tuple[float, float]:
        """Where the middle share `level` of the resampled laws lies with some figure of a law."""
        values = [of(law) for law in self.resampled]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    @property
    def residual(self) -> float:
        """Root mean square of measured means less the law, in accuracy."""
        gaps = [np.mean(values) - self.law.accuracy(size) for size, values in self.measured.items()]
        return float(np.sqrt(np.mean(np.square(gaps))))


def fit_scaling_law(measured: Measured, seed: int = 0) -> ScalingFit:
    """Fit the law by weighted least squares, and again to `NUM_RESAMPLES` draws (parametric bootstrap).

    The spread is pooled over all sizes and is itself an estimate from few seeds. So the draws are Student's t with the
    degrees of freedom that all sizes have together (seeds less one, summed), not normal; and since the sizes share the
    one spread, they share its error too: each draw takes one factor for all of them (a multivariate t). A size with one
    seed takes the pooled spread; with one seed everywhere there is none, and the band is empty rather than invented:
    all resampled laws are the law.

    Args:
        measured: at least `MIN_SIZES` sizes.
        seed: of the draws, at least 0. Fits that are compared draw by draw need different ones: with the same one their
            noise is the same noise and cancels in the comparison.

    Raises:
        ValueError: too few sizes, a size without a seed, or an accuracy outside 0..1.
    """
    sizes = sorted(measured)
    if len(sizes) < MIN_SIZES:
        raise ValueError(
            f"a law with an offset needs at least {MIN_SIZES} numbers of images, not {len(sizes)}; train on more sizes"
        )
    if any(not measured[size] or size < 1 for size in sizes):
        raise ValueError("every number of images must be at least 1 and have at least one accuracy")
    if any(not 0 <= value <= 1 for values in measured.values() for value in values):
        raise ValueError("accuracies must lie between 0 and 1")
    groups = [measured[size] for size in sizes]
    means = np.array([np.mean(values) for values in groups])
    errors = standard_errors(groups)
    x = np.array(sizes, np.float64)
    weights = 1 / np.maximum(errors, SMALLEST_SPREAD)
    (law,) = _fit(x, 1 - means[None], weights)
    if not errors.any():
        return ScalingFit(law, (law,), dict(measured))
    drawn = _drawn_means(means, errors, degrees_of_freedom(groups), seed)
    return ScalingFit(law, tuple(_fit(x, 1 - drawn, weights)), dict(measured))


def _drawn_means(means: Floats, errors: Floats, freedom: int, seed: int) -> Floats:
    """Means as other seeds might have given them, float64 [NUM_RESAMPLES, sizes], multivariate t around `means`."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, errors, (NUM_RESAMPLES, len(means)))
    scale = np.sqrt(freedom / random.chisquare(freedom, (NUM_RESAMPLES, 1)))
    drawn: Floats = np.clip(means + scale * noise, 0, 1)  # the tails of few degrees of freedom leave what can be
    return drawn


def degrees_of_freedom(groups: Sequence[Sequence[float]]) -> int:
    """Of the spread pooled over all groups: their values less one of each."""
    return sum(len(values) - 1 for values in groups)


def standard_errors(groups: Sequence[Sequence[float]]) -> Floats:
    """Standard error of each group's mean, from the spread pooled over all groups: three seeds alone say too little."""
    freedom = degrees_of_freedom(groups)
    if not freedom:
        return np.zeros(len(groups))
    pooled = math.sqrt(sum(float(np.var(values)) * len(values) for values in groups) / freedom)
    return np.array([pooled / math.sqrt(len(values)) for values in groups])


def _fit(x: Floats, errors: Floats, weights: Floats) -> list[ScalingLaw]:
    """The best law of each row of `errors` [K, sizes]: floor and amplitude are linear once the exponent is known.

    So the exponent is searched on a grid, and again on a finer one around the best, which no start can mislead.
    """
    reference = float(np.exp(np.mean(np.log(x))))
    rows = np.arange(len(errors))
    grid: Floats = np.tile(np.geomspace(MIN_EXPONENT, MAX_EXPONENT, GRID), (len(errors), 1))
    for _ in range(REFINEMENTS):
        _, _, cost = _linear_parts(grid, np.log(x / reference), errors, weights)
        best = np.argmin(cost, axis=1)
        low, high = grid[rows, np.maximum(best - 1, 0)], grid[rows, np.minimum(best + 1, GRID - 1)]
        grid = np.linspace(low, high, GRID, axis=1)
    floor, amplitude, cost = _linear_parts(grid, np.log(x / reference), errors, weights)
    best = np.argmin(cost, axis=1)
    return [
        ScalingLaw(float(floor[row, at]), float(amplitude[row, at]), float(grid[row, at]), reference)
        for row, at in zip(rows, best, strict=True)
    ]


def _linear_parts(grid: Floats, log_ratio: Floats, errors: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Floor, amplitude and cost [K, exponents] by weighted least squares; neither part may be negative."""
    z = np.exp(-grid[:, :, None] * log_ratio)  # [K, exponents, sizes]
    w = weights**2 / np.sum(weights**2)
    y = errors[:, None, :]
    mean_z, mean_y = (z * w).sum(-1), (y * w).sum(-1)
    variance = (z**2 * w).sum(-1) - mean_z**2
    slope = ((z * y * w).sum(-1) - mean_z * mean_y) / np.maximum(variance, 1e-300)
    through_zero = (z * y * w).sum(-1) / (z**2 * w).sum(-1)
    slope = np.maximum(slope, 0)
    floor = mean_y - slope * mean_z
    amplitude = np.where(floor < 0, through_zero, slope)
    floor = np.maximum(floor, 0)
    cost = ((floor[..., None] + amplitude[..., None] * z - y) ** 2 * w).sum(-1)
    return floor, amplitude, cost


def crossings(one: ScalingLaw, other: ScalingLaw, low: float, high: float) -> list[float]:
    """Numbers of images between `low` and `high` where two laws give the same accuracy, rising."""
    from scipy.optimize import brentq

    def gap(log_size: float) -> float:
        return one.accuracy(math.exp(log_size)) - other.accuracy(math.exp(log_size))

    grid = np.linspace(math.log(low), math.log(high), 512)
    signs = [gap(float(point)) > 0 for point in grid]
    pairs = [(grid[i], grid[i + 1]) for i in range(len(grid) - 1) if signs[i] != signs[i + 1]]
    return [math.exp(brentq(gap, float(left), float(right))) for left, right in pairs]
