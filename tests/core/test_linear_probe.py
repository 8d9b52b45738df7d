import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.core.errors import InputError
from pipeline.core.linear_probe import (
    C_RANGE,
    LEARNING_RATE_RANGE,
    WEIGHT_DECAY_RANGE,
    lbfgs_fit,
    log_odds,
    normalised,
    probe,
    sgd_fit,
    validation_rows,
)
from pipeline.core.transfer_config import TransferConfig

SETTINGS = TransferConfig(num_trials=4, sgd_epochs=20, sgd_batch_size=64, torch_threads=1)


def blobs(per_class: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes around the first three axes of 8 dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), per_class)
    centres = 3 * np.eye(8)[labels]
    return (centres + spread * generator.standard_normal((len(labels), 8))).astype(np.float32), labels


@pytest.mark.parametrize("kind", ["lbfgs", "sgd"])
def test_classes_that_lie_apart_are_told_apart_and_noise_is_not(kind: str):
    found = probe(kind, blobs(40, 0.1, 0), blobs(30, 0.1, 1), 3, SETTINGS, seed=0)
    assert (found.correct, found.test_images, found.top1) == (90, 90, 1.0)
    assert found.validation_top1 == 1.0 and found.finished and found.trials == 4
    features, labels = blobs(40, 0.1, 0)
    shuffled = np.random.default_rng(5).permutation(labels)
    assert probe(kind, (features, shuffled), blobs(30, 0.1, 1), 3, SETTINGS, seed=0).top1 < 0.7


def test_the_search_stays_in_the_ranges_of_the_protocol():
    chosen = probe("lbfgs", blobs(20, 2, 0), blobs(9, 2, 1), 3, SETTINGS, 0).settings
    assert set(chosen) == {"C"} and C_RANGE[0] <= chosen["C"] <= C_RANGE[1]
    chosen = probe("sgd", blobs(20, 2, 0), blobs(9, 2, 1), 3, SETTINGS, 0).settings
    assert set(chosen) == {"learning_rate", "weight_decay"}
    assert LEARNING_RATE_RANGE[0] <= chosen["learning_rate"] <= LEARNING_RATE_RANGE[1]
    assert WEIGHT_DECAY_RANGE[0] <= chosen["weight_decay"] <= WEIGHT_DECAY_RANGE[1]


def test_the_end_is_a_refit_on_all_of_trainval_without_normalisation():
    trainval, test = blobs(30, 2.5, 0), blobs(50, 2.5, 1)
    found = probe("lbfgs", trainval, test, 3, SETTINGS, seed=3)
    model = LogisticRegression(C=found.settings["C"], max_iter=2000).fit(*trainval)
    assert found.correct == int((model.predict(test[0]) == test[1]).sum())
    held_out = validation_rows(trainval[1], 0.2, seed=3)
    part = LogisticRegression(C=found.settings["C"], max_iter=2000).fit(*(a[~held_out] for a in trainval))
    assert found.validation_top1 == pytest.approx((part.predict(trainval[0][held_out]) == trainval[1][held_out]).mean())


def test_sgd_reads_normalised_features():
    trainval, test = blobs(30, 1.5, 0), blobs(50, 1.5, 1)
    scales = np.random.default_rng(0).uniform(0.01, 100, (90, 1)).astype(np.float32)
    assert probe("sgd", (trainval[0] * scales, trainval[1]), test, 3, SETTINGS, 0).correct == pytest.approx(
        probe("sgd", trainval, test, 3, SETTINGS, 0).correct, abs=1
    )


def test_a_solver_that_is_stopped_says_so():
    few = SETTINGS.model_copy(update={"lbfgs_max_iterations": 1})
    _, finished = lbfgs_fit(few)({"C": 1e6}, *blobs(30, 2, 0), blobs(5, 2, 1)[0])
    assert not finished
    _, finite = sgd_fit(SETTINGS, 3, 0)({"learning_rate": 1e38, "weight_decay": 0}, *blobs(30, 2, 0), blobs(5, 2, 1)[0])
    assert not finite


def test_sgd_is_the_stated_optimizer():
    """The same layer by hand: momentum 0.9, cosine per step, the seed's weights and orders."""
    features, labels = blobs(20, 1, 0)
    features = normalised(features)
    settings = SETTINGS.model_copy(update={"sgd_epochs": 3, "sgd_batch_size": 32})
    predictions, _ = sgd_fit(settings, 3, 7)({"learning_rate": 2.0, "weight_decay": 0.1}, features, labels, features)
    torch.manual_seed(7)
    layer = torch.nn.Linear(8, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    velocity = [torch.zeros_like(weight), torch.zeros_like(bias)]
    generator = torch.Generator().manual_seed(7)
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    for epoch in range(3):
        order = torch.randperm(60, generator=generator)
        for number, rows in enumerate(order.split(32)):
            rate = 2.0 * (1 + math.cos(math.pi * (2 * epoch + number) / 6)) / 2
            error = ((x[rows] @ weight.T + bias).softmax(1) - torch.nn.functional.one_hot(y[rows], 3)) / len(rows)
            for i, (parameter, gradient) in enumerate([(weight, error.T @ x[rows]), (bias, error.sum(0))]):
                velocity[i] = 0.9 * velocity[i] + gradient + 0.1 * parameter
                parameter -= rate * velocity[i]
    assert torch.equal(torch.from_numpy(predictions), (x @ weight.T + bias).argmax(1))


def test_the_validation_part_is_a_share_of_each_class_and_leaves_one_to_train_on():
    labels = np.array([0] * 100 + [1] * 10 + [2] * 3 + [3])
    held_out = validation_rows(labels, 0.2, seed=0)
    assert np.bincount(labels[held_out], minlength=4).tolist() == [20, 2, 1, 0]
    assert not np.array_equal(held_out, validation_rows(labels, 0.2, seed=1))
    assert np.array_equal(held_out, validation_rows(labels, 0.2, seed=0))
    assert validation_rows(np.array([0, 0]), 0.9, seed=0).sum() == 1
    with pytest.raises(InputError, match="hold out"):
        validation_rows(np.array([0, 1]), 0.2, seed=0)


def test_a_validation_part_is_rounded_down_but_holds_one_of_every_class_that_has_two():
    labels = np.repeat(np.arange(3), [8, 2, 4])
    assert np.bincount(labels[validation_rows(labels, 0.2, seed=0)], minlength=3).tolist() == [1, 1, 1]


def test_rows_have_length_one_after_normalisation():
    rows = normalised(np.array([[3, 4], [0, 0], [-2, 0]], np.float32))
    assert rows.tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0], [-1, 0]]


def test_log_odds_are_finite_and_odd():
    assert log_odds(50, 100) == 0 and log_odds(90, 100) == pytest.approx(math.log(9))
    assert log_odds(100, 100) == pytest.approx(math.log(99.5 / 0.5))
    assert log_odds(0, 100) == pytest.approx(-log_odds(100, 100))
