"""Linear classifiers on frozen features, as trex, the code base beside the paper, trains them (docs/transfer.md).

Small sets: L2-penalised logistic regression by L-BFGS on features as they are. Large sets: one linear layer by SGD on
L2-normalised features. Both search their settings with Optuna on a part of trainval and are then trained on all of it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.class_draws import drawn_from_each_class
from pipeline.core.errors import InputError
from pipeline.core.transfer_config import TransferConfig

C_RANGE = (1e-5, 1e6)
"""Inverse penalty of the logistic regression, searched on a logarithmic scale."""
LEARNING_RATE_RANGE = (0.1, 100.0)
WEIGHT_DECAY_RANGE = (1e-12, 1e-4)
"""Of SGD, searched on a logarithmic scale."""
SGD_MOMENTUM = 0.9
_ROWS = 65_536  # of one step over features

Array = NDArray[np.float32]
Labels = NDArray[np.int64]
Fit = Callable[[dict[str, float], Array, Labels, Array], tuple[Labels, bool]]
"""(settings, features, labels, features to predict) -> predictions, and whether the solver came to its end."""


@dataclass(frozen=True)
class ProbeResult:
    """What a linear classifier did on a test set.

    Args:
        correct: test images whose class it names.
        test_images: how many there are.
        validation_top1: of the best trial, 0..1.
        settings: that the search chose.
        finished: the last solver converged (L-BFGS) or kept finite weights (SGD).
        trials: of the search.
    """

    correct: int
    test_images: int
    validation_top1: float
    settings: dict[str, float]
    finished: bool
    trials: int

    @property
    def top1(self) -> float:
        """Share of right predictions, 0..1."""
        return self.correct / self.test_images


def probe(
    kind: str,
    trainval: tuple[Array, Labels],
    test: tuple[Array, Labels],
    num_classes: int,
    settings: TransferConfig,
    seed: int,
) -> ProbeResult:
    """Search, train on all of trainval, score on test.

    Args:
        kind: `lbfgs` or `sgd`.
        trainval: features float32 [n, d] and labels int64 [n].
        test: likewise.
        num_classes: of the set; labels are 0..num_classes-1.
        settings: numbers of trials, iterations and epochs.
        seed: of the validation part, the search and SGD.

    Raises:
        InputError: trainval is too small for a validation part.
    """
    fit = lbfgs_fit(settings) if kind == "lbfgs" else sgd_fit(settings, num_classes, seed)
    space = lbfgs_space if kind == "lbfgs" else sgd_space
    held_out = validation_rows(trainval[1], settings.validation_share, seed)
    features, labels = trainval
    test_features = test[0]
    if kind == "sgd":
        features, test_features = normalised(features), normalised(test_features)
    chosen, validation_top1 = _search(space, fit, (features, labels), held_out, settings.num_trials, seed)
    predictions, finished = fit(chosen, features, labels, test_features)
    correct = int((predictions == test[1]).sum())
    return ProbeResult(correct, len(test[1]), validation_top1, chosen, finished, settings.num_trials)


def validation_rows(labels: Labels, share: float, seed: int) -> NDArray[np.bool_]:
    """Rows held out for the search, bool [n]: `share` of each class, rounded down, at least one; one stays to train on.

    Raises `InputError` when no class has two rows.
    """
    held_out = drawn_from_each_class(labels, lambda count: min(max(int(share * count), 1), count - 1), seed)
    if not held_out.any():
        raise InputError("no class has two images, so there is none to hold out for the search; give more images")
    return held_out


def lbfgs_space(trial: optuna.Trial) -> dict[str, float]:
    """The inverse penalty C of one trial."""
    return {"C": trial.suggest_float("C", *C_RANGE, log=True)}


def sgd_space(trial: optuna.Trial) -> dict[str, float]:
    """Learning rate and weight decay of one trial."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", *LEARNING_RATE_RANGE, log=True),
        "weight_decay": trial.suggest_float("weight_decay", *WEIGHT_DECAY_RANGE, log=True),
    }


def _search(
    space: Callable[[optuna.Trial], dict[str, float]],
    fit: Fit,
    trainval: tuple[Array, Labels],
    held_out: NDArray[np.bool_],
    num_trials: int,
    seed: int,
) -> tuple[dict[str, float], float]:
    """The settings with the best accuracy on the held-out rows (the first of equals), and that accuracy."""
    features, labels = trainval
    train, train_labels = features[~held_out], labels[~held_out]
    validation, truth = features[held_out], labels[held_out]

    def objective(trial: optuna.Trial) -> float:
        predictions, _ = fit(space(trial), train, train_labels, validation)
        return float((predictions == truth).mean())

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    together = space is sgd_space  # both numbers drawn from one density; a single one has none to be joint with
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=together, group=together)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=num_trials)
    return dict(study.best_params), float(study.best_value)


def lbfgs_fit(settings: TransferConfig) -> Fit:
    """Logistic regression of scikit-learn: all classes in one softmax, intercept, tolerance 1e-4."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    def fit(chosen: dict[str, float], features: Array, labels: Labels, asked: Array) -> tuple[Labels, bool]:
        model = LogisticRegression(C=chosen["C"], solver="lbfgs", max_iter=settings.lbfgs_max_iterations)
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(settings.torch_threads):
            warnings.simplefilter("always")
            model.fit(features, labels)
        finished = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
        return np.asarray(model.predict(asked), np.int64), finished

    return fit


def sgd_fit(settings: TransferConfig, num_classes: int, seed: int) -> Fit:
    """A linear layer with bias: momentum 0.9, cosine per step to 0, cross-entropy, a new order every epoch."""

    def fit(chosen: dict[str, float], features: Array, labels: Labels, asked: Array) -> tuple[Labels, bool]:
        inputs = torch.from_numpy(features).to(settings.device)
        targets = torch.from_numpy(labels).to(settings.device)
        layer = _train_layer(inputs, targets, num_classes, settings, chosen, seed)
        finite = bool(layer.weight.isfinite().all())
        with torch.inference_mode():
            parts = torch.from_numpy(asked).split(_ROWS)
            predictions = torch.cat([layer(part.to(settings.device)).argmax(1).cpu() for part in parts])
        return predictions.numpy(), finite

    return fit


def _train_layer(
    inputs: Tensor, targets: Tensor, num_classes: int, settings: TransferConfig, chosen: dict[str, Any], seed: int
) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(inputs.shape[1], num_classes)
    layer = layer.to(inputs.device)
    generator = torch.Generator().manual_seed(seed)
    steps_per_epoch = math.ceil(len(inputs) / settings.sgd_batch_size)
    optimizer = torch.optim.SGD(
        layer.parameters(), chosen["learning_rate"], momentum=SGD_MOMENTUM, weight_decay=chosen["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.sgd_epochs * steps_per_epoch)
    for _ in range(settings.sgd_epochs):
        order = torch.randperm(len(inputs), generator=generator).to(inputs.device)
        for rows in order.split(settings.sgd_batch_size):
            loss = F.cross_entropy(layer(inputs[rows]), targets[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
    return layer


def normalised(features: Array) -> Array:
    """Each row over its L2 norm, float32; a row of zeros stays one."""
    result: Array = np.empty_like(features)
    for start in range(0, len(features), _ROWS):  # a norm squares its input: all at once would be one copy more
        rows = features[start : start + _ROWS]
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        result[start : start + _ROWS] = rows / np.maximum(norms, np.finfo(np.float32).tiny)
    return result


def log_odds(correct: float, total: int) -> float:
    """log(p / (1 - p)) of a share of right answers, at least half an image away from 0 and from all, to be finite."""
    share = min(max(correct, 0.5), total - 0.5) / total
    return math.log(share / (1 - share))
