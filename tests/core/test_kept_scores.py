"""Scores that are kept: the same numbers without the model, and of nothing but the same weights and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.classifier import TrainedClassifier
from pipeline.core.errors import WorkError
from pipeline.core.evaluate_config import CorruptionConfig, EvaluateConfig
from pipeline.core.kept_scores import keep_counts, kept_counts, kept_scores
from pipeline.core.real_images import ArrayImages
from pipeline.core.robustness import CorruptionCounts
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import SetSpec
from pipeline.core.train_config import TrainConfig

NUM_CLASSES = 3
SETTINGS = EvaluateConfig(batch_size=4, torch_threads=1)


class Counting(torch.nn.Module):
    """Logits are the first three red values; counts the images that it saw."""

    seen = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        return batch[:, 0, 0, :NUM_CLASSES]


def opened(fingerprint: str, metric: str = "accuracy") -> OpenSet:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    images = ArrayImages("noise", fingerprint, pixels, np.arange(10, dtype=np.int64) % NUM_CLASSES)
    return OpenSet(SetSpec("noise", "noise", metric), images, list(range(NUM_CLASSES)), NUM_CLASSES)  # type: ignore[arg-type]


@pytest.fixture
def trained() -> TrainedClassifier:
    names = [str(label) for label in range(NUM_CLASSES)]
    return TrainedClassifier(Counting(), TrainConfig(input_size=16), names, names, {}, "ab" * 32)


def seen(trained: TrainedClassifier) -> int:
    assert isinstance(trained.model, Counting)
    return trained.model.seen


def test_the_second_time_gives_the_same_without_the_model(store: Store, trained: TrainedClassifier) -> None:
    sets = {"imagenet_val": opened("a"), "imagenet_o": opened("b", "anomaly")}
    first, num_first = kept_scores(store, trained, sets, SETTINGS)
    second, num_second = kept_scores(store, trained, sets, SETTINGS)
    assert (num_first, num_second, seen(trained)) == (20, 0, 20)
    assert list(second) == list(first) == list(sets)
    for name in sets:
        assert second[name].metrics == first[name].metrics, name
    one, other = first["imagenet_val"].images, second["imagenet_val"].images
    assert one is not None and other is not None and second["imagenet_o"].images is None
    for field in ("labels", "predictions", "confidences", "in_top_k", "confusion"):
        before, after = getattr(one, field), getattr(other, field)
        assert before.dtype == after.dtype and np.array_equal(before, after), field
    assert other.calibration_error == one.calibration_error


def test_one_more_set_is_scored_alone(store: Store, trained: TrainedClassifier) -> None:
    kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)
    both, num_new = kept_scores(store, trained, {"more": opened("b"), "noise": opened("a")}, SETTINGS)
    assert (num_new, seen(trained), list(both)) == (10, 20, ["more", "noise"])


def test_an_anomaly_set_is_told_apart_from_these_images_only(store: Store, trained: TrainedClassifier) -> None:
    outside = {"imagenet_o": opened("o", "anomaly")}
    kept_scores(store, trained, {"imagenet_val": opened("a"), **outside}, SETTINGS)
    assert kept_scores(store, trained, {"imagenet_val": opened("b"), **outside}, SETTINGS)[1] == 20


def test_the_file_says_what_the_model_took_each_image_for(
    store: Store, trained: TrainedClassifier, tmp_path: Path
) -> None:
    found = kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)[0]["noise"].images
    (path,) = (tmp_path / "scores").iterdir()
    table = pq.read_table(path)
    assert table.column_names == ["label", "prediction", "confidence", "in_top_k"]
    assert found is not None and table["prediction"].to_pylist() == found.predictions.tolist()


@pytest.mark.parametrize("other", ["weights", "network", "images", "overlap", "bins", "resize"])
def test_anything_else_is_scored_anew(store: Store, trained: TrainedClassifier, other: str) -> None:
    kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)
    changed = {"weights": {"weights_sha256": "cd" * 32}, "network": {"train": TrainConfig(input_size=17)}}.get(
        other, {}
    )
    noise = opened("b" if other == "images" else "a")
    sets = {"noise": replace(noise, overlap=[0, 1]) if other == "overlap" else noise}
    update = {"bins": {"num_calibration_bins": 3}, "resize": {"resize": 18}}.get(other, {})
    assert kept_scores(store, replace(trained, **changed), sets, SETTINGS.model_copy(update=update))[1] == 10


def test_a_damaged_file_says_how_to_mend_it(store: Store, trained: TrainedClassifier, tmp_path: Path) -> None:
    sets = {"imagenet_val": opened("a"), "imagenet_o": opened("b", "anomaly")}
    kept_scores(store, trained, sets, SETTINGS)
    for path in (tmp_path / "scores").iterdir():
        whole = path.read_bytes()
        for damage in (whole[: len(whole) // 2], b"", b"[]"):
            path.write_bytes(damage)
            with pytest.raises(WorkError, match="is damaged .*; remove it"):
                kept_scores(store, trained, sets, SETTINGS)
        path.write_bytes(whole)


def test_counts_of_corrupted_images_are_kept_for_their_corruptions_only(
    store: Store, trained: TrainedClassifier
) -> None:
    one = opened("a")
    settings = SETTINGS.model_copy(update={"corruptions": CorruptionConfig(names=["fog"], severities=[1, 3])})
    assert kept_counts(store, trained, one, settings) is None
    counts = CorruptionCounts(10, 8, {("fog", 1): 7, ("fog", 3): 5})
    keep_counts(store, trained, one, settings, counts)
    assert kept_counts(store, trained, one, settings) == counts
    others = settings.model_copy(update={"corruptions": CorruptionConfig(names=["fog"], severities=[1, 2])})
    assert kept_counts(store, trained, one, others) is None
    assert kept_counts(store, replace(trained, weights_sha256="cd" * 32), one, settings) is None
    assert kept_counts(store, trained, replace(one, overlap=[0]), settings) is None  # chosen among fewer classes
