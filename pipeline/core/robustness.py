"""Accuracy under ImageNet-C's corruptions: counts of one model, and the verdict over twins and seeds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.augment import normalise
from pipeline.core.corruption_names import FAMILIES, MIN_SIDE, STANDARD
from pipeline.core.corruptions import CorruptionPool
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import CorruptionConfig, EvaluateConfig
from pipeline.core.metrics import mean_and_std
from pipeline.core.model_identity import GROUPS
from pipeline.core.real_images import LabelledImages
from pipeline.core.test_set_opening import OpenSet

SAY_EVERY_S = 30
Classifier = Callable[[torch.Tensor], torch.Tensor]
"""Images float32 [n, 3, S, S], normalised, to logits [n, C]."""


@dataclass
class CorruptionCounts:
    """What one model did.

    Args:
        images: scored, of each kind.
        clean: right ones without a corruption.
        right: right ones by (corruption, severity).
    """

    images: int = 0
    clean: int = 0
    right: dict[tuple[str, int], int] = field(default_factory=dict)

    def accuracy(self, name: str, severity: int) -> float:
        """Share of right ones, 0..1."""
        return self.right[name, severity] / self.images


def first_of_each_class(labels: NDArray[np.int64], count: int | None) -> list[int]:
    """Positions of the first `count` images of each class (None: of all), ascending."""
    if count is None:
        return list(range(len(labels)))
    return sorted(int(p) for label in np.unique(labels) for p in np.flatnonzero(labels == label)[:count])


def check_corruptions(settings: CorruptionConfig, input_size: int) -> None:
    """Raise `InputError` when pictures of `input_size` pixels are too small for the library."""
    if settings.names and input_size < MIN_SIDE:
        raise InputError(
            f"evaluate.corruptions needs models of at least {MIN_SIDE} pixels (train.input_size is {input_size}); "
            "leave it out"
        )


def among(model: Classifier, one: OpenSet) -> Classifier:
    """The model, choosing among the classes that a set shows, as the set's headline has it."""
    if not one.is_masked:
        return model
    outside = sorted(set(range(one.num_classes)) - set(one.overlap))

    def masked(images: torch.Tensor) -> torch.Tensor:
        logits = model(images)
        return logits.index_fill(1, torch.tensor(outside, device=logits.device), -torch.inf)

    return masked


def count_corrupted(
    models: Mapping[str, Classifier],
    images: LabelledImages,
    settings: EvaluateConfig,
    input_size: int,
    say: Callable[[str], object],
) -> dict[str, CorruptionCounts]:
    """Score models on corrupted copies of the same images, made once for all of them.

    An image is resized and cropped first, as the classifier sees it, and corrupted then, as ImageNet-C was made.

    Args:
        models: by name, on `settings.device`, in eval mode.
        images: the clean ones.
        settings: corruptions, batch size, resize and device.
        input_size: pixels, of all models.
        say: takes a line every half minute.
    """
    chosen = settings.corruptions
    kinds = [(name, severity) for name in chosen.names for severity in chosen.severities]
    positions = first_of_each_class(images.labels, chosen.num_images_per_class)
    counts = {name: CorruptionCounts(len(positions), 0, dict.fromkeys(kinds, 0)) for name in models}
    started = said = time.monotonic()
    done, total = 0, len(positions) * len(kinds)
    with CorruptionPool(chosen.num_processes, chosen.seed) as pool:
        for start in range(0, len(positions), settings.batch_size):
            part = positions[start : start + settings.batch_size]
            clean = images.crops(part, input_size, settings.resize)
            labels = torch.from_numpy(images.labels[part])
            for name, right in _right(models, clean, labels, settings.device):
                counts[name].clean += right
            for kind, corrupted in pool.each(clean, part, kinds):
                for name, right in _right(models, corrupted, labels, settings.device):
                    counts[name].right[kind] += right
                done += len(part)
                if (now := time.monotonic()) - said >= SAY_EVERY_S:
                    said, left_s = now, (now - started) * (total / done - 1)
                    say(f"evaluate: {done:,} of {total:,} corrupted images, {left_s / 60:.0f} min left")
    return counts


def _right(
    models: Mapping[str, Classifier], pixels: NDArray[np.uint8], labels: torch.Tensor, device: str
) -> list[tuple[str, int]]:
    batch = normalise(torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255)
    return [(name, int((model(batch).argmax(1).cpu() == labels).sum())) for name, model in models.items()]


def robustness(models: Sequence[tuple[str, str, CorruptionCounts]], settings: CorruptionConfig) -> dict[str, Any]:
    """The numbers of metrics.json: for each twin its accuracy on clean and on corrupted images.

    Args:
        models: (group of `GROUPS`, model id, counts) of each model.
        settings: what was asked for.

    Returns:
        `images`, `settings` and `groups`. A group has, as mean, std over seeds and value by model: `clean`;
        `corrupted`, the mean over severities and those of `STANDARD` that were asked for (or, without any of them, of
        what was); `relative`, corrupted over clean; one for each family; and `table`, corruption -> accuracy by
        severity (mean over seeds).
    """
    groups = {}
    for group in GROUPS:
        if found := {model_id: counts for owner, model_id, counts in models if owner == group}:
            shares = {model_id: _shares(counts, settings) for model_id, counts in found.items()}
            groups[group] = {
                **{name: _spread({m: s[name] for m, s in shares.items()}) for name in next(iter(shares.values()))},
                "table": {
                    name: [statistics.fmean(c.accuracy(name, s) for c in found.values()) for s in settings.severities]
                    for name in settings.names
                },
            }
    return {"images": models[0][2].images, "settings": settings.model_dump(mode="json"), "groups": groups}


def _shares(counts: CorruptionCounts, settings: CorruptionConfig) -> dict[str, float]:
    def mean(names: Sequence[str]) -> float:
        return statistics.fmean(counts.accuracy(name, severity) for name in names for severity in settings.severities)

    clean = counts.clean / counts.images
    standard = [name for name in settings.names if name in STANDARD] or list(settings.names)
    corrupted = mean(standard)
    families = {family: [name for name in names if name in settings.names] for family, names in FAMILIES.items()}
    found = {"clean": clean, "corrupted": corrupted, "relative": corrupted / clean if clean else 0.0}
    return {**found, **{family: mean(names) for family, names in families.items() if names}}


def _spread(values: Mapping[str, float]) -> dict[str, Any]:
    mean, std = mean_and_std(list(values.values()))
    return {"mean": mean, "std": std, "models": dict(values)}
