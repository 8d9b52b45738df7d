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
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path))


@pytest.fixture
def trained() -> TrainedClassifier:
    names = [str(label) for label in range(NUM_CLASSES)]
    return TrainedClassifier(Counting(), TrainConfig(input_size=16), names, names, {}, "ab" * 32)


def seen(trained: TrainedClassifier) -> int:
    assert isinstance(trained.model, Counting)
    return trained.model.seen


def test_the_second_time_gives_the_same_without_the_model(store: Store, trained: TrainedClassifier) -> None:
    sets = {"noise": opened("a"), "more": opened("b")}
    first, kept_first = kept_scores(store, trained, sets, SETTINGS)
    second, kept_second = kept_scores(store, trained, sets, SETTINGS)
    assert (kept_first, kept_second, seen(trained)) == (False, True, 20)
    assert second.sets == first.sets and list(second.sets) == list(first.sets)
    for name in ("labels", "predictions", "confidences", "in_top_k", "confusion"):
        one, other = getattr(first.main, name), getattr(second.main, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert second.main.calibration_error == first.main.calibration_error


def test_the_file_says_what_the_model_took_each_image_for(
    store: Store, trained: TrainedClassifier, tmp_path: Path
) -> None:
    found, _ = kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)
    (path,) = (tmp_path / "scores").iterdir()
    table = pq.read_table(path)
    assert table.column_names == ["label", "prediction", "confidence", "in_top_k"]
    assert table["prediction"].to_pylist() == found.main.predictions.tolist()


@pytest.mark.parametrize("other", ["weights", "network", "images", "bins", "resize", "sets"])
def test_anything_else_is_scored_anew(store: Store, trained: TrainedClassifier, other: str) -> None:
    kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)
    changed = {"weights": {"weights_sha256": "cd" * 32}, "network": {"train": TrainConfig(input_size=17)}}.get(
        other, {}
    )
    sets = {"noise": opened("b" if other == "images" else "a")} | ({"more": opened("c")} if other == "sets" else {})
    update = {"bins": {"num_calibration_bins": 3}, "resize": {"resize": 18}}.get(other, {})
    assert not kept_scores(store, replace(trained, **changed), sets, SETTINGS.model_copy(update=update))[1]


def test_a_damaged_file_says_how_to_mend_it(store: Store, trained: TrainedClassifier, tmp_path: Path) -> None:
    kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)
    (path,) = (tmp_path / "scores").iterdir()
    for damage in (path.read_bytes()[:50], b""):
        path.write_bytes(damage)
        with pytest.raises(WorkError, match="is damaged .* remove it, and the model is scored again"):
            kept_scores(store, trained, {"noise": opened("a")}, SETTINGS)


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
