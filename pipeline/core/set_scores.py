"""Scores on test sets that show some of a model's classes, or none: among all classes, and among only those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor

from pipeline.core.metrics import TOP_K, mean_and_std
from pipeline.core.model_identity import GROUPS, TWINS

METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "top1_masked": "top-1 among the set's classes",
    "top5_masked": "top-5 among the set's classes",
    "aupr": "AUPR",
    "aupr_masked": "AUPR among the set's classes",
}
"""Every metric of a set, in words."""


class HitSums:
    """Counts images whose true class is among a model's best, among all classes and among those of a test set.

    Args:
        overlap: labels of the test set's classes, ascending; None when it shows every class.
    """

    def __init__(self, overlap: Sequence[int] | None) -> None:
        self._overlap = None if overlap is None else torch.tensor(overlap)
        self._count = 0
        self._hits: dict[str, int] = {}

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """One batch: logits float [n, C], labels int64 [n], each in `overlap`."""
        logits, labels = logits.detach().float().cpu(), labels.cpu()
        self._count += len(labels)
        self._add("", logits, labels)
        if self._overlap is not None:
            self._add("_masked", logits[:, self._overlap], torch.searchsorted(self._overlap, labels))

    def _add(self, suffix: str, logits: Tensor, labels: Tensor) -> None:
        best = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices == labels[:, None]
        for name, hits in (("top1", best[:, 0]), ("top5", best.any(dim=1))):
            self._hits[name + suffix] = self._hits.get(name + suffix, 0) + int(hits.sum())

    def result(self) -> dict[str, float]:
        """Shares 0..1: `top1`, `top5` (of `min(5, classes)`), with `_masked` ones when there is an overlap."""
        assert self._count, "no images were scored"
        return {name: hits / self._count for name, hits in self._hits.items()}


class SurenessSums:
    """Collects how sure a model is of each image: its largest softmax probability.

    Args:
        overlap: labels of the classes that the masked softmax is over; None for no masked one.
        only: keep only images with these labels; None keeps all.
    """

    def __init__(self, overlap: Sequence[int] | None, only: Sequence[int] | None = None) -> None:
        self._overlap = overlap
        self._only = None if only is None else torch.tensor(only)
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """One batch: logits float [n, C], labels int64 [n]."""
        logits, labels = logits.detach().float().cpu(), labels.cpu()
        if self._only is not None:
            logits = logits[torch.isin(labels, self._only)]
        self._parts.setdefault("aupr", []).append(logits.softmax(dim=1).amax(dim=1))
        if self._overlap is not None:
            masked = logits[:, list(self._overlap)]
            self._parts.setdefault("aupr_masked", []).append(masked.softmax(dim=1).amax(dim=1))

    def result(self) -> dict[str, NDArray[np.float32]]:
        """Probabilities of all images by the name of the metric that they are for."""
        return {name: torch.cat(parts).numpy() for name, parts in self._parts.items()}


def aupr(inside: NDArray[np.float32], outside: NDArray[np.float32]) -> float:
    """Area under precision and recall of finding the images of no class by a low largest probability, 0..1.

    As ImageNet-O's authors do it (Hendrycks et al. 2021, arXiv:1907.07174): average precision, anomalies are positive,
    the score is the negative of the probability.
    """
    truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    return float(average_precision_score(truth, -np.r_[inside, outside]))


def headline(metrics: Mapping[str, float]) -> str:
    """The metric that stands for a set in plots: of its own classes where it has only some."""
    kind = "aupr" if "aupr" in metrics else "top1"
    return f"{kind}_masked" if f"{kind}_masked" in metrics else kind


def set_verdict(models: Sequence[tuple[str, str, Mapping[str, float]]]) -> dict[str, Any]:
    """One set's numbers for metrics.json.

    Args:
        models: (group of `GROUPS`, model id, metrics) of each model; all have the same metrics.

    Returns:
        `headline`, `groups` (each metric's mean, std over seeds, value by model) and `gap` (real less synthetic by
        metric, None without both).
    """
    names = list(models[0][2])
    groups = {}
    for group in GROUPS:
        if found := [(model_id, metrics) for owner, model_id, metrics in models if owner == group]:
            groups[group] = {name: _spread(name, found) for name in names}
    gap = None
    if groups.keys() >= set(TWINS):
        gap = {name: groups["real"][name]["mean"] - groups["synthetic"][name]["mean"] for name in names}
    return {"headline": headline(models[0][2]), "groups": groups, "gap": gap}


def _spread(name: str, models: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, Any]:
    values = {model_id: metrics[name] for model_id, metrics in models}
    mean, std = mean_and_std(list(values.values()))
    return {"mean": mean, "std": std, "models": values}
