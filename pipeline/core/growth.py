"""How fast each class's error falls with its images, and where further images lower the mean error most.

    error_c(n) = floor_c + amplitude_c * n ** -exponent

One exponent for all classes: it comes from the mean accuracy by the scaling law, whose noise is small. Floors and
amplitudes are each class's own, but drawn towards what all classes have in common as far as the seeds' spread says that
their differences are noise (empirical Bayes, Efron and Morris 1973).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.scaling_law import fit_scaling_law

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
MIN_SEEDS = 2
"""Without two trainings of a kind nothing tells a slow class from an unlucky training."""


@dataclass(frozen=True)
class ClassLaws:
    """The laws of all C classes.

    Args:
        floors: error of each class that no number of images goes below, float64 [C].
        amplitudes: error above the floor with one image, float64 [C].
        exponent: how fast it falls.
    """

    floors: Floats
    amplitudes: Floats
    exponent: float

    def errors(self, images: Counts | Floats) -> Floats:
        """Expected error of every class with so many images of each, [C] to float64 [C]."""
        fallen: Floats = self.floors + self.amplitudes * np.power(images, -self.exponent)
        return fallen


@dataclass(frozen=True)
class GrowthFit:
    """Fitted laws and what else the seeds' spread would have allowed."""

    laws: ClassLaws
    resampled: tuple[ClassLaws, ...]


def shared_errors(confusion: Counts) -> Floats:
    """Each class's share of the errors, float64 [C]: half of a confusion counts for the true class, half for the other.

    The border between two classes is drawn by the images of both, and growing one alone moves it to the other's side.
    The mean over classes is the error of equally many images of each.

    Args:
        confusion: int64 [C, C]; rows are true classes with equally many images, columns predictions.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    shares: Floats = (wrong.sum(axis=1) + wrong.sum(axis=0)) / 2 / confusion.sum(axis=1)
    return shares


def fit_classes(sizes: Sequence[int], errors: Floats, scored: int, seed: int = 0) -> GrowthFit:
    """Fit all classes together, and again to draws from the seeds' spread.

    Args:
        sizes: images of each class, S different ones, at least three.
        errors: of every size, seed and class, float64 [S, R, C].
        scored: images of each class that the errors are shares of.
        seed: of the draws.

    Raises:
        ValueError: too few sizes or seeds, or the mean error does not fall.
    """
    if errors.shape[1] < MIN_SEEDS:
        raise ValueError(f"each size needs trainings with at least {MIN_SEEDS} seeds, not {errors.shape[1]}")
    fit = fit_scaling_law({n: (1 - e.mean(axis=-1)).tolist() for n, e in zip(sizes, errors, strict=True)}, seed)
    means = errors.mean(axis=1)
    # Counts of few errors spread in proportion to their mean, and so, roughly, does what a training makes of a class.
    dispersion = float(errors.var(axis=1, ddof=1).sum() / means.sum())
    spread = np.sqrt(dispersion * means.mean(axis=0) / errors.shape[1])  # of a mean over seeds, [C]
    laws = _laws(sizes, means, spread, scored, fit.law.exponent)
    draws = np.maximum(np.random.default_rng(seed).normal(means, spread, (len(fit.resampled), *means.shape)), 0)
    others = [
        _laws(sizes, drawn, spread, scored, law.exponent)
        for drawn, law in zip(draws, fit.resampled, strict=True)
        if np.polyfit(np.power(sizes, -law.exponent), drawn.mean(axis=1), 1)[0] > 0
    ]
    return GrowthFit(laws, tuple(others) or (laws,))


def _laws(sizes: Sequence[int], means: Floats, spread: Floats, scored: int, exponent: float) -> ClassLaws:
    """The laws of means [S, C] of the given spread [C]. Raises `ValueError` when the mean error does not fall."""
    z = np.power(np.array(sizes, np.float64), -exponent)
    centred = z - z.mean()
    slopes = centred @ means / (centred @ centred)
    levels = means.mean(axis=0)
    if slopes.mean() <= 0:
        raise ValueError("the accuracy does not grow with the number of images, so no class is worth more of them")
    noise = spread**2 / len(sizes) + levels / scored  # the scored images are the same for all sizes and seeds
    levels = shrunk(levels, noise, np.full_like(levels, levels.mean()))
    usual = slopes.mean() / levels.mean() * levels  # every class's error falls by the same share
    slopes = shrunk(slopes, spread**2 / (centred @ centred), usual)
    slopes = np.clip(slopes, 0, levels / z.mean())  # a floor is not below 0
    return ClassLaws(levels - slopes * z.mean(), slopes, exponent)


def shrunk(values: Floats, noise: Floats, towards: Floats) -> Floats:
    """Values drawn towards others, the more the larger their noise (variance) is beside their true differences.

    What differs beyond the noise is estimated by the moments; where nothing does, the others remain.
    """
    gaps = values - towards
    differences = max(0.0, float(np.mean(gaps**2 - noise)))
    whole = differences + noise
    kept = np.divide(differences, whole, out=np.ones_like(gaps), where=whole > 0)
    result: Floats = towards + kept * gaps
    return result


def allocate(laws: ClassLaws, start: int, images: int, block: int) -> Counts:
    """How many more images each class should get, whole blocks, so that the expected mean error is lowest: int64 [C].

    Block by block to the class whose error falls most by it. That is the best of all allocations, since every next
    block of a class brings less than the one before; with real numbers it is amplitude ** (1 / (1 + exponent)) of each
    class less what it has, filled up like water.

    Args:
        laws: of the classes.
        start: images that every class has.
        images: more images of all classes together; what is no whole block is left over.
        block: images of one block.
    """
    counts = np.zeros(len(laws.amplitudes), np.int64)

    def gain(label: int) -> float:
        there = float(start + counts[label])
        less = math.pow(there, -laws.exponent) - math.pow(there + block, -laws.exponent)
        return float(laws.amplitudes[label]) * less

    # Of classes with equal gains the one that has fewest, so that equal classes grow alike.
    waiting = [(-gain(label), 0, label) for label in range(len(counts))]
    heapq.heapify(waiting)
    for _ in range(images // block):
        label = waiting[0][2]
        counts[label] += block
        heapq.heapreplace(waiting, (-gain(label), int(counts[label]), label))
    return counts
