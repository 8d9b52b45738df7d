"""Scores of a classifier on labelled images: sums and counts first, ratios last."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from pipeline.core.errors import WorkError

TOP_K = 5
CONFIDENCE = 0.95
"""Coverage of every interval here."""


@dataclass(frozen=True)
class Scores:
    """What one model did on one test set of N images and C classes.

    Args:
        labels: true classes, int64 [N].
        predictions: classes with the largest logit, int64 [N].
        confidences: softmax probability of the prediction, float32 [N], 0..1.
        in_top_k: whether the true class is among the `min(5, C)` largest logits, bool [N].
        confusion: int64 [C, C]; rows are true classes, columns predictions.
        calibration_error: expected calibration error, 0..1 (Guo et al. 2017, arXiv:1706.04599; equal-width bins).
    """

    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    confidences: NDArray[np.float32]
    in_top_k: NDArray[np.bool_]
    confusion: NDArray[np.int64]
    calibration_error: float

    @property
    def count(self) -> int:
        """Images scored."""
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image's prediction is right, bool [N]."""
        found: NDArray[np.bool_] = self.labels == self.predictions
        return found

    @property
    def top1(self) -> float:
        """Share of right predictions, 0..1."""
        return int(self.correct.sum()) / self.count

    @property
    def top5(self) -> float:
        """Share of images whose true class is among the `min(5, C)` best, 0..1."""
        return int(self.in_top_k.sum()) / self.count

    @property
    def top1_interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of `top1`: what other test images of this kind would move it by."""
        found = binomtest(int(self.correct.sum()), self.count).proportion_ci(CONFIDENCE, method="wilson")
        return float(found.low), float(found.high)

    @property
    def per_class(self) -> list[float | None]:
        """Share of right predictions per true class; None for a class without images."""
        counts = self.confusion.sum(axis=1)
        return [int(self.confusion[c, c]) / int(n) if n else None for c, n in enumerate(counts)]


class ScoreSums:
    """Collects a model's logits batch by batch, keeping a few numbers per image.

    Args:
        num_classes: C.
        num_calibration_bins: equal-width bins of the calibration error.
    """

    def __init__(self, num_classes: int, num_calibration_bins: int) -> None:
        self._num_classes = num_classes
        self._calibration = MulticlassCalibrationError(num_classes, num_calibration_bins, norm="l1")
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """One batch.

        Args:
            logits: float [n, C], on any device.
            labels: int64 [n], on any device.

        Raises:
            WorkError: a logit is NaN or infinite.
        """
        logits, labels = logits.detach().float().cpu(), labels.cpu()
        if not bool(logits.isfinite().all()):
            raise WorkError("the model gives logits that are no numbers; its training diverged, lower learning_rate")
        probabilities = logits.softmax(dim=1)
        confidences, predictions = probabilities.max(dim=1)
        best = logits.topk(min(TOP_K, self._num_classes), dim=1).indices
        self._calibration.update(probabilities, labels)
        self._parts.append((labels, predictions, confidences, (best == labels[:, None]).any(dim=1)))

    def result(self) -> Scores:
        """The scores of all batches so far; at least one image must have been added."""
        assert self._parts, "no images were scored"
        labels, predictions, confidences, in_top_k = (
            torch.cat(column).numpy() for column in zip(*self._parts, strict=True)
        )
        return Scores(
            labels=labels,
            predictions=predictions,
            confidences=confidences,
            in_top_k=in_top_k,
            confusion=confusion_matrix(labels, predictions, labels=np.arange(self._num_classes)),
            calibration_error=float(self._calibration.compute()),
        )


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; the latter is None for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired_gap(first: Sequence[Scores], second: Sequence[Scores]) -> tuple[float, tuple[float, float]]:
    """Top-1 of `first` less that of `second`, means over their models, and its 95% interval.

    Both saw the same images in the same order, so each image is its own control: the interval is the normal one of the
    mean difference per image. It says what other test images would change, not what other seeds would.
    """
    assert len({scores.count for scores in (*first, *second)}) == 1
    difference = np.mean([s.correct for s in first], axis=0) - np.mean([s.correct for s in second], axis=0)
    gap = float(difference.mean())
    half = 1.959964 * float(difference.std()) / math.sqrt(len(difference))
    return gap, (gap - half, gap + half)
