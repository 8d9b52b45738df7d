from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.core.augment import normalise
from pipeline.core.corruptions import corrupt
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import CorruptionConfig, EvaluateConfig
from pipeline.core.real_images import ArrayImages
from pipeline.core.robustness import (
    CorruptionCounts,
    among,
    check_corruptions,
    count_corrupted,
    first_of_each_class,
    robustness,
)
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import SetSpec


def bright(batch: torch.Tensor) -> torch.Tensor:
    """A classifier whose answer is known: class 1 when the mean pixel is above ImageNet's mean, else class 0."""
    mean = batch.mean(dim=(1, 2, 3))
    return torch.stack([-mean, mean], dim=1)


def test_counts_are_those_of_the_corrupted_images_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.core.robustness.SAY_EVERY_S", 0)
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 170, (12, 1, 1, 3)).repeat(32, 1).repeat(32, 2).astype(np.uint8)
    labels = np.arange(12) % 2
    images = ArrayImages("made up", "0" * 64, pixels, labels)
    chosen = CorruptionConfig(
        names=("brightness", "gaussian_noise"), severities=(2, 5), num_images_per_class=5, seed=4, num_processes=1
    )
    settings = EvaluateConfig(batch_size=4, corruptions=chosen)
    said: list[object] = []
    found = count_corrupted({"a": bright, "b": lambda batch: -bright(batch)}, images, settings, 32, said.append)
    positions = first_of_each_class(labels, 5)
    assert positions == list(range(10))
    assert len(said) == 12 and said[-1] == "evaluate: 40 of 40 corrupted images, 0 min left"

    def right(changed: np.ndarray) -> int:
        batch = normalise(torch.from_numpy(changed).permute(0, 3, 1, 2).float() / 255)
        return int((bright(batch).argmax(1).numpy() == labels[positions]).sum())

    assert found["a"].images == 10 and found["a"].clean == right(pixels[positions])
    for name in chosen.names:
        for severity in chosen.severities:
            expected = right(corrupt(pixels[positions], positions, name, severity, seed=4))
            assert found["a"].right[name, severity] == expected
            assert found["b"].right[name, severity] == 10 - expected
    assert found["a"].right["brightness", 5] == 5  # all look bright then: half are right
    assert found["a"].clean != 5


def test_a_model_chooses_among_the_classes_that_a_masked_set_shows() -> None:
    def known(batch: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[3.0, 9.0, 1.0, 2.0]]).repeat(len(batch), 1)

    images = ArrayImages("made up", "0" * 64, np.zeros((1, 8, 8, 3), np.uint8), np.array([2]))
    masked, whole = (OpenSet(SetSpec("a", "a"), images, overlap, 4) for overlap in ([2, 3], [0, 1, 2, 3]))
    assert among(known, masked)(torch.zeros(2, 3)).argmax(1).tolist() == [3, 3]
    assert among(known, whole)(torch.zeros(2, 3)).argmax(1).tolist() == [1, 1]


def test_first_of_each_class_keeps_the_order_of_the_set() -> None:
    labels = np.array([1, 0, 1, 1, 0, 2])
    assert first_of_each_class(labels, 1) == [0, 1, 5]
    assert first_of_each_class(labels, 2) == [0, 1, 2, 4, 5]
    assert first_of_each_class(labels, None) == [0, 1, 2, 3, 4, 5]


def counts(clean: int, **right: tuple[int, int]) -> CorruptionCounts:
    return CorruptionCounts(
        100, clean, {(name, s): both[i] for name, both in right.items() for i, s in ((0, 1), (1, 3))}
    )


def test_the_verdict_is_a_mean_over_the_standard_ones_relative_to_clean() -> None:
    settings = CorruptionConfig(names=("fog", "snow", "pixelate", "saturate"), severities=(1, 3))
    models = [
        ("real", "r0", counts(80, fog=(60, 40), snow=(50, 50), pixelate=(70, 30), saturate=(0, 0))),
        ("synthetic", "s0", counts(80, fog=(40, 20), snow=(30, 30), pixelate=(60, 60), saturate=(9, 9))),
        ("synthetic", "s1", counts(60, fog=(40, 20), snow=(30, 30), pixelate=(60, 60), saturate=(9, 9))),
    ]
    found = robustness(models, settings)
    real, synthetic = found["groups"]["real"], found["groups"]["synthetic"]
    assert found["images"] == 100 and list(found["groups"]) == ["synthetic", "real"]
    assert real["corrupted"]["mean"] == pytest.approx(0.5)  # saturate is not in it
    assert real["relative"]["mean"] == pytest.approx(0.5 / 0.8) and real["relative"]["std"] is None
    assert (real["weather"]["mean"], real["digital"]["mean"]) == pytest.approx((0.5, 0.5))
    assert "noise" not in real and real["table"]["fog"] == pytest.approx([0.6, 0.4])
    assert synthetic["clean"]["mean"] == pytest.approx(0.7)
    assert synthetic["corrupted"]["mean"] == pytest.approx(0.4)
    assert synthetic["relative"]["models"] == pytest.approx({"s0": 0.5, "s1": 0.4 / 0.6})
    assert synthetic["table"]["saturate"] == pytest.approx([0.09, 0.09])


def test_pictures_that_the_library_refuses_are_refused_first() -> None:
    with pytest.raises(InputError, match=r"at least 32 pixels \(train.input_size is 16\)"):
        check_corruptions(CorruptionConfig(names=("fog",)), 16)
    check_corruptions(CorruptionConfig(), 16)
