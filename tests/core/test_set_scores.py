"""Masks, top-k and AUPR against scikit-learn and torchmetrics, on random logits and on ones with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, precision_recall_curve, top_k_accuracy_score
from torchmetrics.functional.classification import binary_average_precision, multiclass_accuracy

from pipeline.core.set_scores import HitSums, SurenessSums, aupr, headline, set_verdict


def test_a_classifier_of_known_answers() -> None:
    """Six images of classes 1 and 3 among five; class 0 is what the model likes best where it errs."""
    labels = torch.tensor([1, 1, 1, 3, 3, 3])
    logits = torch.tensor(
        [
            [0.0, 9, 0, 0, 0],  # right
            [9.0, 8, 0, 1, 0],  # taken for 0, right among 1 and 3
            [9.0, 1, 0, 8, 0],  # wrong either way
            [0.0, 0, 0, 9, 0],  # right
            [9.0, 8, 7, 6, 5],  # wrong either way
            [9.0, 1, 7, 8, 6],  # right among 1 and 3
        ]
    )
    sums = HitSums([1, 3])
    sums.add(logits[:4], labels[:4])
    sums.add(logits[4:], labels[4:])
    assert sums.result() == {"top1": 2 / 6, "top5": 1.0, "top1_masked": 4 / 6, "top5_masked": 1.0}


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(7, 40), st.integers(6, 12), st.booleans())
def test_hits_are_those_of_scikit_learn_and_torchmetrics(seed: int, count: int, classes: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    overlap = sorted(rng.choice(classes, size=rng.integers(2, classes), replace=False).tolist())
    labels = rng.choice(np.arange(classes) if whole else overlap, size=count)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    sums = HitSums(None if whole else overlap)
    for part in np.array_split(np.arange(count), 3):
        sums.add(torch.from_numpy(logits[part]), torch.from_numpy(labels[part]))
    found = sums.result()
    every = np.arange(classes)
    for k in (1, 5):
        assert found[f"top{k}"] == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=every))
    tensors = torch.from_numpy(logits), torch.from_numpy(labels)
    expected = multiclass_accuracy(*tensors, num_classes=classes, average="micro", top_k=5)
    assert found["top5"] == pytest.approx(float(expected))
    if whole:
        assert list(found) == ["top1", "top5"]
        return
    # The mask, by another way: all other logits at minus infinity, argmax over all classes.
    hidden = np.where(np.isin(every, overlap), logits, -np.inf)
    assert found["top1_masked"] == pytest.approx((hidden.argmax(1) == labels).mean())
    ranks = (-hidden).argsort(axis=1, kind="stable")[:, : min(5, len(overlap))]
    assert found["top5_masked"] == pytest.approx((ranks == labels[:, None]).any(1).mean())
    assert found["top1_masked"] >= found["top1"] and found["top5_masked"] >= found["top5"]


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 60), st.integers(1, 60), st.sampled_from([2, 6]))
def test_aupr_is_that_of_torchmetrics_ties_or_not(seed: int, num_in: int, num_out: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = (rng.random(n).round(digits).astype(np.float32) for n in (num_in, num_out))
    truth = torch.cat([torch.zeros(num_in), torch.ones(num_out)]).int()
    anomaly = 1 - torch.from_numpy(np.r_[inside, outside]).double()  # torchmetrics wants scores in 0..1
    assert aupr(inside, outside) == pytest.approx(float(binary_average_precision(anomaly, truth)), abs=1e-6)


def test_aupr_of_known_answers() -> None:
    sure, unsure = np.float32([0.9, 0.8, 0.95]), np.float32([0.3, 0.2])
    assert aupr(sure, unsure) == 1.0
    assert aupr(unsure, sure) == pytest.approx((1 / 3 + 2 / 4 + 3 / 5) / 3)
    assert aupr(np.full(30, 0.5, np.float32), np.full(10, 0.5, np.float32)) == pytest.approx(0.25)  # the share of them
    precision, recall, _ = precision_recall_curve([0, 0, 0, 1, 1], -np.r_[sure, unsure])
    assert auc(recall, precision) == 1.0


def test_sureness_is_of_the_masked_softmax_and_only_of_wanted_images() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 6, generator=rng), torch.arange(20) % 6
    sums = SurenessSums([0, 2, 5], only=[0, 2, 5])
    sums.add(logits[:7], labels[:7])
    sums.add(logits[7:], labels[7:])
    found = sums.result()
    kept = [row for row in range(20) if row % 6 in (0, 2, 5)]
    assert torch.allclose(torch.from_numpy(found["aupr"]), logits[kept].softmax(1).max(1).values)
    masked = logits[kept][:, [0, 2, 5]].softmax(1).max(1).values
    assert torch.allclose(torch.from_numpy(found["aupr_masked"]), masked)
    everything = SurenessSums(None)
    everything.add(logits, labels)
    assert list(everything.result()) == ["aupr"] and len(everything.result()["aupr"]) == 20


def test_the_verdict_of_a_set() -> None:
    models = [
        ("synthetic", "s0", {"top1": 0.2, "top1_masked": 0.4}),
        ("synthetic", "s1", {"top1": 0.4, "top1_masked": 0.6}),
        ("real", "r0", {"top1": 0.5, "top1_masked": 0.7}),
    ]
    found = set_verdict(models)
    assert found["headline"] == "top1_masked"
    assert found["groups"]["synthetic"]["top1"]["mean"] == pytest.approx(0.3)
    assert found["groups"]["synthetic"]["top1"]["models"] == {"s0": 0.2, "s1": 0.4}
    assert found["groups"]["real"]["top1"]["std"] is None
    assert found["gap"] == pytest.approx({"top1": 0.2, "top1_masked": 0.2})
    assert set_verdict(models[:2])["gap"] is None
    assert (
        headline({"top1": 0.1, "top5": 0.2}) == "top1" and headline({"aupr": 0.1, "aupr_masked": 0.1}) == "aupr_masked"
    )
