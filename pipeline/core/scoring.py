"""Run a trained classifier over labelled real images."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
class SetScores:
    """What one model did on one test set.

    Args:
        metrics: metric (of `set_scores.METRICS`) -> value 0..1.
        images: what it took each image for; None for a set of images of no class.
    """

    metrics: dict[str, float]
    images: Scores | None


def main_set(sets: Mapping[str, OpenSet]) -> str:
    """The set that the page shows: the first with an accuracy."""
    return next(name for name, one in sets.items() if one.spec.metric == "accuracy")


def score_sets(
    trained: TrainedClassifier, sets: Mapping[str, OpenSet], settings: EvaluateConfig, wanted: Collection[str]
) -> dict[str, SetScores]:
    """Scores of one model on the wanted ones of the sets, in float32, so that they do not depend on its training.

    Raises:
        InputError: an image cannot be read.
        WorkError: a logit is no number.
    """
    masks = {name: one.overlap if one.is_masked else None for name, one in sets.items()}
    hits = {name: HitSums(masks[name]) for name in wanted if sets[name].spec.metric == "accuracy"}
    sums = {name: ScoreSums(len(trained.wnids), settings.num_calibration_bins) for name in hits}
    outside = {name: SurenessSums(masks[name]) for name in wanted if name not in hits}
    inside = {name: SurenessSums(masks[name], only=sets[name].overlap) for name in outside}
    for name, one in sets.items():
        collectors: list[Collector] = [part[name] for part in (hits, sums, outside) if name in part]
        collectors += inside.values() if name == IN_DISTRIBUTION else []
        if collectors:
            feed(trained, one.images, settings, collectors)
    found = {name: SetScores(count.result(), sums[name].result()) for name, count in hits.items()}
    for name, out in outside.items():
        known = inside[name].result()
        among = {metric: aupr(known[metric], sureness) for metric, sureness in out.result().items()}
        found[name] = SetScores(among, None)
    return found


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
