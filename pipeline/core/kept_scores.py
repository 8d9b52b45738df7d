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
from pipeline.core.scoring import SetScores, score_sets
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import IN_DISTRIBUTION

SCORES_VERSION = 2
"""Part of the id: raise it when the same model would get other numbers."""
SIDE = b"synthclones.scores"
"""Key of the file's metadata: what is no number of a single image, as JSON."""
_MEND = "remove it, and the model is scored again"


def kept_scores(
    store: Store, trained: TrainedClassifier, sets: Mapping[str, OpenSet], settings: EvaluateConfig
) -> tuple[dict[str, SetScores], int]:
    """What one model does on every set: by `score_sets`, or as that gave it before for a set.

    `scores/<id>.parquet` has a row for each image of a set with an accuracy: `label` and `prediction` (int64),
    `confidence` (float32, 0..1) and `in_top_k` (bool), in the order of the set. Of other sets there is only
    `scores/<id>.json`.

    Returns:
        The scores by set, and how many images of sets were scored now.

    Raises:
        InputError: an image cannot be read.
        WorkError: a logit is no number; a file that is there is damaged, or one cannot be written.
    """
    paths = {name: _path(trained, sets, name, settings) for name in sets}
    new = [name for name, path in paths.items() if not store.exists(path)]
    found = score_sets(trained, sets, settings, new) if new else {}
    for name, scores in found.items():
        _keep(store, paths[name], scores)
    for name, path in paths.items():
        if name not in found:
            found[name] = _read(store, path, len(trained.wnids))
    return {name: found[name] for name in sets}, sum(len(sets[name].images) for name in new)


def kept_counts(
    store: Store, trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig
) -> CorruptionCounts | None:
    """What `count_corrupted` gave for this model before; None when it is not there. Raises `WorkError` for damage."""
    path = _counts_path(trained, one, settings)
    if not store.exists(path):
        return None
    found = store.read_json(path, _MEND)
    try:
        right = {(name, severity): count for name, severity, count in found["right"]}
        return CorruptionCounts(found["images"], found["clean"], right)
    except (TypeError, ValueError) as error:
        raise _damaged(store, path, error) from error


def keep_counts(
    store: Store, trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig, counts: CorruptionCounts
) -> None:
    """Keep them for `kept_counts`."""
    right = [[name, severity, count] for (name, severity), count in counts.right.items()]
    value = {"images": counts.images, "clean": counts.clean, "right": right}
    store.write_json(_counts_path(trained, one, settings), value)


def _keep(store: Store, path: str, scores: SetScores) -> None:
    images = scores.images
    if images is None:
        store.write_json(path, {"metrics": scores.metrics})
        return
    columns = {
        "label": images.labels,
        "prediction": images.predictions,
        "confidence": images.confidences,
        "in_top_k": images.in_top_k,
    }
    side = json.dumps({"calibration_error": images.calibration_error, "metrics": scores.metrics})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata({SIDE: side.encode()}), sink)
    store.write_bytes(path, sink.getvalue().to_pybytes())


def _read(store: Store, path: str, num_classes: int) -> SetScores:
    try:
        if path.endswith(".json"):
            return SetScores(store.read_json(path, _MEND)["metrics"], None)
        table = store.read_table(path)
        side = json.loads((table.schema.metadata or {})[SIDE])
        label, prediction, confidence, in_top_k = (
            table[name].to_numpy() for name in ("label", "prediction", "confidence", "in_top_k")
        )
        confusion = confusion_matrix(label, prediction, labels=range(num_classes))
        images = Scores(label, prediction, confidence, in_top_k, confusion, side["calibration_error"])
        return SetScores(side["metrics"], images)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(store, path, error) from error


def _damaged(store: Store, path: str, error: Exception) -> WorkError:
    return WorkError(f"{store.uri(path)} is damaged ({error!r}); {_MEND}")


def _path(trained: TrainedClassifier, sets: Mapping[str, OpenSet], name: str, settings: EvaluateConfig) -> str:
    one = sets[name]
    identity = {"set": one.images.fingerprint, "overlap": one.overlap, "resize": settings.resize}
    if one.spec.metric == "accuracy":
        bins = settings.num_calibration_bins
        return f"{_place(trained, {**identity, 'num_calibration_bins': bins})}.parquet"
    return f"{_place(trained, {**identity, 'inside': sets[IN_DISTRIBUTION].images.fingerprint})}.json"


def _counts_path(trained: TrainedClassifier, one: OpenSet, settings: EvaluateConfig) -> str:
    fingerprint = one.images.fingerprint
    identity: dict[str, Any] = {
        "corruptions": settings.corruptions.identity,
        "set": fingerprint,
        "resize": settings.resize,
    }
    if one.is_masked:
        identity["overlap"] = one.overlap
    return f"{_place(trained, identity)}.json"


def _place(trained: TrainedClassifier, identity: Mapping[str, Any]) -> str:
    """By the weights themselves, and what they do not tell: a model that was trained again is another one."""
    network = trained.train.model_dump(mode="json", include={"input_size", "head", "temperature"})
    whole = {"scores_version": SCORES_VERSION, "weights": trained.weights_sha256, "network": network, **identity}
    return f"scores/{content_hash(whole)[:ID_LENGTH]}"
