"""Where further images help: known laws are found again, their known optimum too, and noise is not followed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.core.growth import ClassLaws, Floats, allocate, fit_classes, shared_errors, shrunk

SIZES = (100, 200, 400, 800)
LAWS = ClassLaws(np.array([0.02, 0.1, 0.0, 0.05]), np.array([0.5, 2.0, 4.0, 1.0]), 0.5)


def measured(laws: ClassLaws, noise: float = 0.0, seeds: int = 3, draw: int = 0) -> Floats:
    """Errors [S, R, C] of trainings whose classes differ by `noise` from their laws, as seeds make them."""
    means = np.array([laws.errors(np.full(len(laws.floors), size)) for size in SIZES])
    drawn = np.random.default_rng(draw).normal(0, noise, (len(SIZES), seeds, len(laws.floors)))
    return np.clip(means[:, None] + drawn, 0, 1)


def test_known_laws_are_found_again() -> None:
    found = fit_classes(SIZES, measured(LAWS), scored=10**9).laws
    assert found.exponent == pytest.approx(0.5, abs=0.01)
    assert found.errors(np.full(4, 3200)) == pytest.approx(LAWS.errors(np.full(4, 3200)), abs=1e-3)
    assert found.floors == pytest.approx(LAWS.floors, abs=3e-3)


def filled(laws: ClassLaws, start: int, images: int) -> Floats:
    """The optimum in real numbers, by its own condition: equal marginal gains wherever something is added."""
    shares = laws.amplitudes ** (1 / (1 + laws.exponent))
    low, high = 0.0, 1e9
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(level * shares - start, 0).sum() < images else (low, level)
    return np.maximum(low * shares - start, 0)


def test_the_allocation_is_the_optimum_to_a_block() -> None:
    given = allocate(LAWS, 800, 4000, 10)
    assert given.sum() == 4000 and np.all(given % 10 == 0)
    assert np.abs(given - filled(LAWS, 800, 4000)).max() <= 10
    assert given[0] == 0  # it has more than its share already


def test_no_other_allocation_of_the_blocks_is_better() -> None:
    blocks, start = 6, 50
    best = min(
        LAWS.errors(start + 25 * np.array(counts)).mean()
        for counts in itertools.product(range(blocks + 1), repeat=4)
        if sum(counts) == blocks
    )
    assert LAWS.errors(start + allocate(LAWS, start, 25 * blocks, 25)).mean() == pytest.approx(best, abs=1e-12)


def test_equal_classes_grow_alike() -> None:
    equal = ClassLaws(np.full(5, 0.1), np.full(5, 1.0), 0.3)
    assert allocate(equal, 100, 1000, 20).tolist() == [200] * 5
    assert allocate(equal, 100, 1019, 20).tolist() == [200] * 5  # what is no whole block is left over


def test_a_class_that_learns_nothing_more_gets_nothing_however_bad_it_is() -> None:
    laws = ClassLaws(np.array([0.5, 0.05, 0.05]), np.array([0.0, 1.0, 1.0]), 0.5)
    found = fit_classes(SIZES, measured(laws, 0.001), scored=10**6).laws
    given = allocate(found, 800, 2000, 50)
    assert given[0] == 0 and abs(given[1] - given[2]) <= 100


def test_noise_is_not_followed() -> None:
    """Ten equal classes, twenty times: the proposal varies far less than it would without shrinking."""
    equal = ClassLaws(np.full(10, 0.05), np.full(10, 1.0), 0.4)
    raw, calm = [], []
    z = np.power(SIZES, -0.4)
    for draw in range(20):
        errors = measured(equal, 0.02, draw=draw)
        slopes = np.polyfit(z, errors.mean(axis=1), 1)[0]
        raw.append(allocate(ClassLaws(equal.floors, np.maximum(slopes, 0), 0.4), 800, 8000, 50).std())
        calm.append(allocate(fit_classes(SIZES, errors, 1000, draw).laws, 800, 8000, 50).std())
    assert np.mean(raw) > 100 and np.mean(calm) < np.mean(raw) / 3


def test_a_proposal_from_noisy_trainings_brings_most_of_what_the_best_one_would() -> None:
    """Classes that differ in both parts; judged by the true laws, which it has not seen."""
    proposed, followed, best = [], [], []
    for draw in range(15):
        random = np.random.default_rng(draw)
        totals, learnable = random.uniform(0.02, 0.4, 10), random.uniform(0.3, 0.9, 10)
        truth = ClassLaws(totals * (1 - learnable), totals * learnable * 800**0.3, 0.3)
        errors = measured(truth, 0.06, draw=draw)
        found = fit_classes(SIZES, errors, 1000).laws
        slopes = np.polyfit(np.power(SIZES, -found.exponent), errors.mean(axis=1), 1)[0]
        noisy = ClassLaws(truth.floors, np.maximum(slopes, 0), found.exponent)
        uniform = truth.errors(np.full(10, 1600)).mean()
        for gains, laws in ((proposed, found), (followed, noisy), (best, truth)):
            gains.append(uniform - truth.errors(800 + allocate(laws, 800, 8000, 50)).mean())
    assert np.mean(best) > 0.002
    assert np.mean(proposed) > 0.7 * np.mean(best) and np.mean(proposed) > np.mean(followed)


def test_what_differs_beyond_the_noise_is_kept() -> None:
    values, towards = np.array([0.0, 1.0, 2.0, 3.0]), np.full(4, 1.5)
    assert shrunk(values, np.full(4, 1e-6), towards) == pytest.approx(values, abs=1e-5)
    assert shrunk(values, np.full(4, 100.0), towards) == pytest.approx(towards)
    assert shrunk(towards, np.zeros(4), towards) == pytest.approx(towards)
    noisy = shrunk(values, np.array([0.0, 0.0, 0.0, 1.0]), towards)
    assert noisy[:3] == pytest.approx(values[:3]) and 1.5 < noisy[3] < 3


def test_resampled_laws_spread_with_the_seeds_and_not_without() -> None:
    calm, loud = (fit_classes(SIZES, measured(LAWS, noise), 1000).resampled for noise in (0.0, 0.02))
    assert np.ptp([laws.amplitudes[1] for laws in calm]) < 1e-9
    assert np.std([laws.errors(np.full(4, 1600))[1] for laws in loud]) > 0.003


def test_a_confusion_counts_half_for_each_of_the_two_classes() -> None:
    confusion = np.array([[90, 10, 0], [20, 80, 0], [0, 0, 100]])
    assert shared_errors(confusion).tolist() == [0.15, 0.15, 0.0]
    assert shared_errors(confusion).mean() == pytest.approx(1 - np.trace(confusion) / confusion.sum())


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds, not 1"):
        fit_classes(SIZES, measured(LAWS, seeds=1), 1000)


def test_an_accuracy_that_does_not_grow_is_refused() -> None:
    with pytest.raises(ValueError, match="does not grow with the number of images"):
        fit_classes(SIZES, measured(LAWS)[::-1], 1000)


@pytest.mark.parametrize("seed", range(5))
def test_models_at_chance_that_take_all_for_a_few_classes_are_fitted_too(seed: int) -> None:
    """Their classes spread so much that draws from it reach below no error at all."""
    errors = np.random.default_rng(seed).gamma(0.5, 2, size=(3, 2, 10))
    errors *= np.array([0.9, 0.9, 0.6])[:, None, None] / errors.mean(axis=-1, keepdims=True)
    fit = fit_classes((4, 8, 32), errors, 50)
    assert len(fit.resampled) > 100
