from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.scaling_law import MIN_SIZES, ScalingLaw, crossings, fit_scaling_law, standard_errors

WIDTH = 0.02
"""Of accuracy: the spread of a mean of 3 seeds gives bands of 0.006 to 0.015 below."""
SIZES = [200, 400, 800, 1600, 3200, 6400]


def exact(law: ScalingLaw, sizes: list[int], seeds: int = 1) -> dict[int, list[float]]:
    return {size: [law.accuracy(size)] * seeds for size in sizes}


@settings(max_examples=25)
@given(floor=st.floats(0.0, 0.3), amplitude=st.floats(0.02, 0.4), exponent=st.floats(0.15, 1.2))
def test_a_curve_without_noise_is_found_again(floor: float, amplitude: float, exponent: float) -> None:
    truth = ScalingLaw(floor, amplitude, exponent, 1000)
    measured = {size: value for size, value in exact(truth, SIZES).items() if value[0] >= 0}
    if len(measured) < MIN_SIZES + 1:
        return
    fit = fit_scaling_law(measured)
    for images in (300, 3000, 12800):
        assert fit.law.accuracy(images) == pytest.approx(truth.accuracy(images), abs=2e-3)
    assert fit.residual < 1e-3


def test_known_parameters_are_found_again() -> None:
    fit = fit_scaling_law(exact(ScalingLaw(0.12, 0.2, 0.5, 1000), SIZES))
    scale = fit.law.amplitude * (1000 / fit.law.reference) ** -fit.law.exponent  # at 1000 images, as the truth has it
    assert (fit.law.floor, scale, fit.law.exponent) == pytest.approx((0.12, 0.2, 0.5), abs=1e-3)


def test_the_band_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 studies of 3 seeds each with a known spread: the 95 % band at twice the largest size."""
    truth, random = ScalingLaw(0.1, 0.15, 0.5, 1000), np.random.default_rng(1)
    hits, widths = 0, []
    for study in range(60):
        noisy = {n: [min(1.0, truth.accuracy(n) + e) for e in random.normal(0, 0.004, 3)] for n in SIZES}
        low, high = fit_scaling_law(noisy, seed=study).interval(lambda law: law.accuracy(12800))
        hits += low <= truth.accuracy(12800) <= high
        widths.append(high - low)
    assert 50 <= hits <= 60
    assert np.mean(widths) < WIDTH  # a band of everything covers too


def test_one_seed_gives_no_band() -> None:
    fit = fit_scaling_law(exact(ScalingLaw(0.1, 0.2, 0.5, 1000), SIZES))
    low, high = fit.interval(lambda law: law.accuracy(5000))
    assert low == high == pytest.approx(fit.law.accuracy(5000), abs=1e-6)


def test_the_draws_know_that_few_seeds_say_little_of_their_spread() -> None:
    """Three degrees of freedom: 95 % of Student's t lie within 3.2 standard errors, of the normal within 2."""
    truth, error = ScalingLaw(0.1, 0.15, 0.5, 1000), 1e-4
    measured = {size: [truth.accuracy(size) - error, truth.accuracy(size) + error] for size in (1000, 2000, 4000)}
    low, high = fit_scaling_law(measured).interval(lambda law: law.accuracy(4000))
    assert 2.5 < (high - low) / (2 * error) < 4.5


def test_no_draw_makes_a_law_of_errors_below_zero() -> None:
    measured = {1000: [0.5, 0.9], 2000: [0.9], 4000: [0.95]}  # one degree of freedom: draws go anywhere
    assert min(law.amplitude for law in fit_scaling_law(measured).resampled) >= 0


def test_the_margin_is_the_slope() -> None:
    law = ScalingLaw(0.1, 0.2, 0.7, 1000)
    slope = (law.accuracy(2001) - law.accuracy(1999)) / 2
    assert law.marginal(2000) == pytest.approx(slope, rel=1e-4)


def test_curves_that_cross_once_cross_where_they_are_equal() -> None:
    fast, slow = ScalingLaw(0.10, 0.3, 0.8, 1000), ScalingLaw(0.15, 0.2, 0.3, 1000)
    (images,) = crossings(fast, slow, 100, 100_000)
    assert fast.accuracy(images) == pytest.approx(slow.accuracy(images)) and 100 < images < 100_000
    assert crossings(fast, ScalingLaw(0.2, 0.3, 0.8, 1000), 100, 100_000) == []


def test_standard_errors_are_pooled() -> None:
    groups = [[0.1, 0.2, 0.3], [0.5], [0.4, 0.6]]
    pooled = math.sqrt((2 * np.var(groups[0], ddof=1) + np.var(groups[2], ddof=1)) / 3)
    assert standard_errors(groups) == pytest.approx([pooled / math.sqrt(k) for k in (3, 1, 2)])


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ({200: [0.5], 400: [0.6]}, "at least 3"),
        ({200: [0.5], 400: [], 800: [0.7]}, "at least one accuracy"),
        ({200: [0.5], 400: [60.0], 800: [0.7]}, "between 0 and 1"),
    ],
)
def test_too_little_or_wrong_is_said(measured: dict[int, list[float]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit_scaling_law(measured)
