"""Run a trained classifier over labelled real images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.core.classifier import TrainedClassifier
from pipeline.core.config import EvaluateConfig
from pipeline.core.errors import InputError
from pipeline.core.metrics import Scores, ScoreSums
from pipeline.core.real_images import LabelledImages


def score(trained: TrainedClassifier, images: LabelledImages, settings: EvaluateConfig) -> Scores:
    """Scores of one model on all images, in float32, so that they do not depend on how it was trained.

    Raises:
        InputError: an image cannot be read.
        WorkError: a logit is no number.
    """
    sums = ScoreSums(len(trained.wnids), settings.num_calibration_bins)
    model = trained.model.to(settings.device).eval()
    with torch.inference_mode(), threads(settings.torch_threads):
        for batch, labels in images.batches(settings.batch_size, trained.train.input_size):
            sums.add(model(batch.to(settings.device)), labels)
    return sums.result()


def check_device(settings: EvaluateConfig) -> None:
    """Raise `InputError` when the device is not there; there is no fallback to another one."""
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise InputError("evaluate.device is cuda but this machine has no usable GPU; set evaluate.device=cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with `count` intra-op threads inside, and as before after."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
