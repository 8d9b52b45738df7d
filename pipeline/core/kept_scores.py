"""What scoring a model gave, kept under `scores/`: no other report scores it on the same images again.

A study scores every trained model by itself, and once more beside its twin and the other seeds; a report that is
stopped goes on with the models that it has not scored yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.metrics import confusion_matrix

from pipeline.core.artifact import Store
from pipeline.core.classifier import TrainedClassifier
from pipeline.core.errors import WorkError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.metrics import Scores
from pipeline.core.robustness import CorruptionCounts
from pipeline.core.scoring import ModelScores, main_set, score_sets
from pipeline.core.test_set_opening import OpenSet

SCORES_VERSION = 1
"""Part of the id: raise it when the same model would get other numbers."""
SIDE = b"synthclones.scores"
"""Key of the file's metadata: what is no number of a single image, as JSON."""


def kept_scores(
    store: Store, trained: TrainedClassifier, sets: Mapping[str, OpenSet], settings: EvaluateConfig
) -> tuple[ModelScores, bool]:
    """`score_sets`, or what it gave before.

    `scores/<id>.parquet` has a row for each image of the main set: `label` and `prediction` (int64), `confidence`
    (float32, 0..1) and `in_top_k` (bool), in the order of the set.

    Returns:
        The scores, and whether they were there already.

    Raises:
        InputError: an image cannot be read.
        WorkError: a logit is no number; the file that is there is damaged, or none can be written.
    """
    path = f"{_place(trained, _identity(sets, settings))}.parquet"
    if store.exists(path):
        return _read(store, path, len(trained.wnids)), True
    found = score_sets(trained, sets, settings)
    main = found.main
    columns = {
        "label": main.labels,
        "prediction": main.predictions,
        "confidence": main.confidences,
        "in_top_k": main.in_top_k,
    }
    side = json.dumps({"calibration_error": main.calibration_error, "sets": found.sets})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata({SIDE: side.encode()}), sink)
    store.write_bytes(path, sink.getvalue().to_pybytes())
    return found, False


def kept_counts(
    store: Store, trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig
) -> CorruptionCounts | None:
    """What `count_corrupted` gave for this model before; None when it is not there. Raises `WorkError` for damage."""
    path = _counts_path(trained, one, settings)
    if not store.exists(path):
        return None
    found = store.read_json(path)
    try:
        right = {(name, severity): count for name, severity, count in found["right"]}
        return CorruptionCounts(found["images"], found["clean"], right)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(store, path, error) from error


def keep_counts(
    store: Store, trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig, counts: CorruptionCounts
) -> None:
    """Keep them for `kept_counts`."""
    right = [[name, severity, count] for (name, severity), count in counts.right.items()]
    value = {"images": counts.images, "clean": counts.clean, "right": right}
    store.write_json(_counts_path(trained, one, settings), value)


def _read(store: Store, path: str, num_classes: int) -> ModelScores:
    try:
        table = store.read_table(path)
        side = json.loads((table.schema.metadata or {})[SIDE])
        label, prediction, confidence, in_top_k = (
            table[name].to_numpy() for name in ("label", "prediction", "confidence", "in_top_k")
        )
        confusion = confusion_matrix(label, prediction, labels=range(num_classes))
        main = Scores(label, prediction, confidence, in_top_k, confusion, side["calibration_error"])
        return ModelScores(main, side["sets"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise _damaged(store, path, error) from error


def _damaged(store: Store, path: str, error: Exception) -> WorkError:
    return WorkError(f"{store.uri(path)} is damaged ({error!r}); remove it, and the model is scored again")


def _identity(sets: Mapping[str, OpenSet], settings: EvaluateConfig) -> dict[str, Any]:
    return {
        "main": main_set(sets),
        "sets": {name: [one.images.fingerprint, one.overlap] for name, one in sets.items()},
        "num_calibration_bins": settings.num_calibration_bins,
        "resize": settings.resize,
    }


def _counts_path(trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig) -> str:
    corruptions = settings.corruptions.model_dump(mode="json", exclude={"num_processes"})
    identity = {"corruptions": corruptions, "set": one.images.fingerprint}
    return f"{_place(trained, {**identity, 'resize': settings.resize})}.json"


def _place(trained: TrainedClassifier, identity: Mapping[str, Any]) -> str:
    """By the weights themselves, and what they do not tell: a model that was trained again is another one."""
    network = trained.train.model_dump(mode="json", include={"input_size", "head", "temperature"})
    whole = {"scores_version": SCORES_VERSION, "weights": trained.weights_sha256, "network": network, **identity}
    return f"scores/{content_hash(whole)[:ID_LENGTH]}"
