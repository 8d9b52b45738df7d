from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.comparison import compare_pair, comparison_markdown, mcnemar

RANDOM = np.random.default_rng(0)
LABELS = np.arange(2000) % 4


def right(share: float, seeds: int = 1) -> np.ndarray:
    return RANDOM.random((seeds, len(LABELS))) < share


def test_mcnemar_is_the_textbook_s_number() -> None:
    """121 images only the first has right, 59 only the second: exact two-sided binomial."""
    first = np.array([True] * 121 + [False] * 59 + [True] * 20)
    second = np.array([False] * 121 + [True] * 59 + [True] * 20)
    p_value = mcnemar(first, second, np.ones(200, bool))
    assert p_value == pytest.approx(4.434e-06, rel=1e-3)  # 121 of 180 under one half
    assert mcnemar(second, first, np.ones(200, bool)) == pytest.approx(p_value)
    assert mcnemar(first, first, np.ones(200, bool)) == 1.0


def test_the_difference_is_the_second_less_the_first_and_lies_in_its_interval() -> None:
    first, second = right(0.7), right(0.8)
    pair = compare_pair(first, second, LABELS, 4)
    assert pair["difference"] == pytest.approx(second.mean() - first.mean())
    assert pair["interval"][0] < pair["difference"] < pair["interval"][1] and pair["p_value"] < 1e-6
    assert pair["only_first"] - pair["only_second"] == first.sum() - second.sum()


def test_pairing_makes_the_interval_narrower() -> None:
    """Two models that err on the same images: the difference is sure, though each accuracy is not."""
    first = right(0.7)
    second = first.copy()
    second[0, np.flatnonzero(~first[0])[:20]] = True
    low, high = compare_pair(first, second, LABELS, 4)["interval"]
    assert low > 0 and high - low < 0.02


def test_the_interval_is_that_of_the_normal_distribution_here() -> None:
    first, second = right(0.7), right(0.72)
    gain = second[0].astype(float) - first[0]
    half = 1.96 * gain.std() / len(gain) ** 0.5
    low, high = compare_pair(first, second, LABELS, 4)["interval"]
    assert (low, high) == pytest.approx((gain.mean() - half, gain.mean() + half), abs=0.15 * half)


def test_models_without_a_difference_are_told_apart_in_one_of_twenty() -> None:
    found = [compare_pair(right(0.7), right(0.7), LABELS, 4, seed)["p_value"] < 0.05 for seed in range(60)]
    assert sum(found) <= 9


def test_several_seeds_have_no_test_but_an_interval() -> None:
    pair = compare_pair(right(0.7, 3), right(0.8, 2), LABELS, 4)
    assert pair["p_value"] is None and pair["only_first"] is None and pair["interval"][0] > 0
    assert all(found["p_value"] is None for found in pair["classes"])


def test_a_class_that_differs_is_found_and_one_without_images_is_left_out() -> None:
    first = right(0.7)
    second = first.copy()
    second[0, LABELS == 2] = True
    classes = compare_pair(first, second, LABELS, 5)["classes"]
    assert [found["label"] for found in classes] == [0, 1, 2, 3]
    assert classes[2]["p_value"] < 1e-6 and classes[2]["difference"] > 0.2
    assert all(found["p_value"] == 1 and found["difference"] == 0 for found in classes if found["label"] != 2)


def test_the_text_holds_every_setting_and_no_name_breaks_its_table() -> None:
    pairs = [compare_pair(right(0.7), right(0.8), LABELS, 4)]
    text = comparison_markdown(["a|b", "c\nd"], ["x|y", "1", "2", "3"], pairs)
    assert "| a\\|b | " in text and "| c d | " in text and "| x\\|y | 500 | " in text
