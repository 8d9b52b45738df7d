"""Every set and metric of one model whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.core.classifier import TrainedClassifier
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.real_images import ArrayImages
from pipeline.core.scoring import check_sizes, main_set, score_sets
from pipeline.core.set_scores import aupr
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import SetSpec
from pipeline.core.train_config import TrainConfig

NUM_CLASSES = 8


class FirstPixels(torch.nn.Module):
    """Logits are the red values of the first eight pixels: an image carries the answer to it."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch[:, 0, 0, :NUM_CLASSES]


def pictures(logits: np.ndarray) -> np.ndarray:
    images = np.zeros((len(logits), 16, 16, 3), dtype=np.uint8)
    images[:, 0, :NUM_CLASSES, 0] = logits
    return images


def opened(name: str, logits: np.ndarray, labels: list[int], overlap: list[int], metric: str = "accuracy") -> OpenSet:
    images = ArrayImages(name, "0" * 64, pictures(logits), np.array(labels, dtype=np.int64))
    return OpenSet(SetSpec(name, name, metric), images, overlap, NUM_CLASSES)  # type: ignore[arg-type]


@pytest.fixture
def trained() -> TrainedClassifier:
    names = [str(label) for label in range(NUM_CLASSES)]
    return TrainedClassifier(FirstPixels(), TrainConfig(input_size=16), names, names, {}, "ab" * 32)


def test_every_set_is_scored_by_its_own_rule(trained: TrainedClassifier) -> None:
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 256, (40, NUM_CLASSES))
    outside = rng.integers(0, 120, (15, NUM_CLASSES))
    labels = (np.arange(40) % NUM_CLASSES).tolist()
    some = [1, 4, 6]
    of_some = [label for label in labels if label in some]
    sets = {
        "imagenet_o": opened("imagenet_o", outside, [-1] * 15, some, "anomaly"),
        "imagenet_val": opened("imagenet_val", inside, labels, list(range(NUM_CLASSES))),
        "imagenet_r": opened("imagenet_r", inside[: len(of_some)], of_some, some),
    }
    assert main_set(sets) == "imagenet_val"
    scores = score_sets(trained, sets, EvaluateConfig(batch_size=7, torch_threads=1), sets)
    found = {name: one.metrics for name, one in scores.items()}
    top1 = (inside.argmax(1) == labels).mean()
    assert found["imagenet_val"]["top1"] == pytest.approx(top1) and found.keys() == sets.keys()
    for name in ("imagenet_val", "imagenet_r"):
        images = scores[name].images
        assert images is not None and {"top1": images.top1, "top5": images.top5}.items() <= found[name].items()
    assert scores["imagenet_o"].images is None  # of no class
    part = inside[: len(of_some)]
    among = np.array(some)[part[:, some].argmax(1)]
    assert found["imagenet_r"]["top1_masked"] == pytest.approx((among == of_some).mean())
    assert found["imagenet_r"]["top1"] == pytest.approx((part.argmax(1) == of_some).mean())

    def sureness(red: np.ndarray, classes: list[int]) -> np.ndarray:
        logits = (torch.from_numpy(red).float() / 255 - 0.485) / 0.229
        return logits[:, classes].softmax(1).amax(1).numpy()

    kept = inside[np.isin(labels, some)]  # only images of the set's classes, of the validation set
    for name, classes in (("aupr", list(range(NUM_CLASSES))), ("aupr_masked", some)):
        expected = aupr(sureness(kept, classes), sureness(outside, classes))
        assert found["imagenet_o"][name] == pytest.approx(expected)


def test_only_what_is_wanted_is_scored(trained: TrainedClassifier) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (NUM_CLASSES, NUM_CLASSES))
    every = list(range(NUM_CLASSES))
    sets = {"imagenet_val": opened("imagenet_val", noise, every, every)}
    sets |= {"imagenet_r": opened("imagenet_r", noise[:3], every[:3], every[:3])}
    sets |= {"imagenet_o": opened("imagenet_o", noise, [-1] * NUM_CLASSES, every[:3], "anomaly")}
    settings = EvaluateConfig(batch_size=7, torch_threads=1)
    whole = score_sets(trained, sets, settings, sets)
    for name in sets:
        one = score_sets(trained, sets, settings, [name])
        assert list(one) == [name] and one[name].metrics == whole[name].metrics


def test_images_are_never_resized_below_the_crop() -> None:
    check_sizes(EvaluateConfig(resize=256), 224)
    check_sizes(EvaluateConfig(), 224)
    with pytest.raises(InputError, match="evaluate.resize 200 is below .* 224"):
        check_sizes(EvaluateConfig(resize=200), 224)
