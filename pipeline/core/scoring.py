"""Run a trained classifier over labelled real images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.core.classifier import TrainedClassifier
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.metrics import Scores, ScoreSums
from pipeline.core.real_images import LabelledImages
from pipeline.core.set_scores import HitSums, SurenessSums, aupr
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import IN_DISTRIBUTION


class Collector(Protocol):
    """Keeps what it needs of a model's answers."""

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """One batch: logits float [n, C], labels int64 [n]."""
        ...


@dataclass(frozen=True)
class ModelScores:
    """What one model did.

    Args:
        main: on the main test set, in full.
        sets: set -> metric (of `set_scores.METRICS`) -> value 0..1, the main one too.
    """

    main: Scores
    sets: dict[str, dict[str, float]]


def main_set(sets: Mapping[str, OpenSet]) -> str:
    """The set that the page shows: the first with an accuracy."""
    return next(name for name, one in sets.items() if one.spec.metric == "accuracy")


def score_sets(trained: TrainedClassifier, sets: Mapping[str, OpenSet], settings: EvaluateConfig) -> ModelScores:
    """Scores of one model on every set, in float32, so that they do not depend on how it was trained.

    Raises:
        InputError: an image cannot be read.
        WorkError: a logit is no number.
    """
    sums = ScoreSums(len(trained.wnids), settings.num_calibration_bins)
    masks = {name: one.overlap if one.is_masked else None for name, one in sets.items()}
    hits = {name: HitSums(masks[name]) for name, one in sets.items() if one.spec.metric == "accuracy"}
    outside = {name: SurenessSums(masks[name]) for name in sets if name not in hits}
    inside = {name: SurenessSums(masks[name], only=sets[name].overlap) for name in outside}
    for name, one in sets.items():
        collectors: list[Collector] = [hits[name] if name in hits else outside[name]]
        collectors += [sums] if name == main_set(sets) else []
        collectors += inside.values() if name == IN_DISTRIBUTION else []
        feed(trained, one.images, settings, collectors)
    found = {name: count.result() for name, count in hits.items()}
    for name, out in outside.items():
        known = inside[name].result()
        found[name] = {metric: aupr(known[metric], sureness) for metric, sureness in out.result().items()}
    return ModelScores(sums.result(), {name: found[name] for name in sets})


def feed(
    trained: TrainedClassifier, images: LabelledImages, settings: EvaluateConfig, collectors: Sequence[Collector]
) -> None:
    """Give every collector the logits of all images, batch by batch."""
    model = trained.model.to(settings.device).eval()
    with torch.inference_mode(), threads(settings.torch_threads):
        for batch, labels in images.batches(settings.batch_size, trained.train.input_size, settings.resize):
            logits = model(batch.to(settings.device))
            for collector in collectors:
                collector.add(logits, labels)


def check_device(settings: EvaluateConfig) -> None:
    """Raise `InputError` when the device is not there; there is no fallback to another one."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("evaluate.device is cuda but this machine has no usable GPU; set evaluate.device=cpu")


def check_sizes(settings: EvaluateConfig, input_size: int) -> None:
    """Raise `InputError` when images would be resized below the crop that the models take."""
    if settings.resize is not None and settings.resize < input_size:
        raise InputError(
            f"evaluate.resize {settings.resize} is below the models' input_size {input_size}; raise it or leave it out"
        )


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Intra-op threads of torch inside, as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
