import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from pipeline.core.errors import WorkError
from pipeline.core.metrics import Scores, ScoreSums, mean_and_std, paired_gap


def scores_of(logits, labels, num_classes: int | None = None, batch_size: int = 1000, bins: int = 15) -> Scores:
    logits, labels = torch.as_tensor(logits, dtype=torch.float32), torch.as_tensor(labels)
    sums = ScoreSums(num_classes or logits.shape[1], bins)
    for start in range(0, len(labels), batch_size):
        sums.add(logits[start : start + batch_size], labels[start : start + batch_size])
    return sums.result()


def ranked(*orders: list[int]) -> list[list[float]]:
    """Logits of 6 classes whose best is the first class named, the next best the second, and so on."""
    return [[-float(order.index(c)) if c in order else -9.0 for c in range(6)] for order in orders]


def test_hand_made_logits():
    logits = ranked([0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [5, 4, 3, 2, 1], [2, 0, 1, 3, 4])
    scores = scores_of(logits, [0, 0, 0, 2])
    assert scores.count == 4
    assert scores.top1 == 0.5
    assert scores.top5 == 0.75  # the third image's class is the sixth best
    assert scores.per_class == [1 / 3, None, 1.0, None, None, None]
    assert scores.confusion.tolist()[0] == [1, 1, 0, 0, 0, 1]
    assert scores.confusion.tolist()[2] == [0, 0, 1, 0, 0, 0]
    assert scores.confusion.sum() == 4


def test_top5_of_three_classes_counts_all():
    assert scores_of([[0.0, 1.0, 2.0]], [0]).top5 == 1.0


@pytest.mark.parametrize(("share_right", "expected"), [(1.0, 0.25), (0.75, 0.0), (0.25, 0.5)])
def test_calibration_error_of_known_confidence(share_right: float, expected: float):
    """Every image has confidence 0.75, so the error is |0.75 - accuracy|."""
    logits = torch.tensor([[math.log(3.0), 0.0]]).repeat(100, 1)
    labels = (torch.arange(100) >= 100 * share_right).long()
    assert scores_of(logits, labels).calibration_error == pytest.approx(expected, abs=1e-6)


def test_wilson_interval_of_a_published_value():
    """81 of 263: (0.2553, 0.3662) by Newcombe 1998, table I, method 3."""
    logits = torch.tensor([[1.0, 0.0]]).repeat(263, 1)
    low, high = scores_of(logits, (torch.arange(263) >= 81).long()).top1_interval
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@settings(max_examples=30)
@given(st.integers(2, 8), st.integers(1, 60), st.integers(1, 17), st.integers(0, 10**6))
def test_batches_do_not_matter_and_sklearn_agrees(num_classes: int, count: int, batch_size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, num_classes, generator=generator)
    labels = torch.randint(num_classes, (count,), generator=generator)
    whole, cut = scores_of(logits, labels), scores_of(logits, labels, batch_size=batch_size)
    assert (whole.confusion == cut.confusion).all() and whole.top5 == cut.top5
    assert whole.calibration_error == pytest.approx(cut.calibration_error, abs=1e-6)
    assert whole.top1 == accuracy_score(labels, logits.argmax(1))
    if num_classes > 5:
        k5 = top_k_accuracy_score(labels, logits, k=5, labels=range(num_classes))
        assert whole.top5 == pytest.approx(k5)


def test_logits_that_are_no_numbers_are_an_error():
    with pytest.raises(WorkError, match="diverged"):
        scores_of([[math.nan, 1.0]], [0])


def test_mean_and_std():
    assert mean_and_std([0.5]) == (0.5, None)
    assert mean_and_std([0.7, 0.8, 0.6]) == (pytest.approx(0.7), pytest.approx(statistics.stdev([0.7, 0.8, 0.6])))


def answers(right: list[int]) -> Scores:
    """A model of 2 classes on images of class 1, right where a 1 stands."""
    return scores_of([[1.0 - r, float(r)] for r in right], [1] * len(right))


def test_gap_is_paired_by_image():
    better, worse = answers([1, 1, 1, 0] * 25), answers([1, 0, 1, 0] * 25)
    gap, (low, high) = paired_gap([better], [worse])
    assert gap == 0.25
    assert high - gap == pytest.approx(1.96 * math.sqrt(0.25 * 0.75 / 100), rel=1e-3)
    assert gap - low == pytest.approx(high - gap)
    assert paired_gap([better], [better]) == (0.0, (0.0, 0.0))


def test_gap_of_several_seeds_is_the_gap_of_the_means():
    first, second = [answers([1, 1, 0, 0]), answers([1, 1, 1, 1])], [answers([1, 0, 0, 0])]
    assert paired_gap(first, second)[0] == pytest.approx(0.5)
    assert np.isclose(paired_gap(second, first)[0], -0.5)
