"""The verdict: scores of the synthetic and the real twin, over seeds, and the gap between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.metrics import TOP_K, Scores, mean_and_std, paired_gap
from pipeline.core.model_identity import GROUPS, LENGTH, OF_GENERATED, OF_MIXING, TWINS


@dataclass(frozen=True)
class ScoredModel:
    """One model's scores.

    Args:
        model_id: name of its directory.
        group: one of `GROUPS`.
        seed: of its training.
        training_images: how many it was trained on.
        scores: on the main test set.
        sets: test set -> metric -> value 0..1.
    """

    model_id: str
    group: str
    seed: int
    training_images: int
    scores: Scores
    sets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def verdict(models: Sequence[ScoredModel], num_classes: int) -> dict[str, Any]:
    """The numbers of metrics.json: `groups` (each model, mean and std over seeds) and `gap` (real less synthetic).

    Shares are 0..1; confusion rows are true classes. `gap` is None unless both twins are there; a positive one means
    that real images are better.
    """
    by_group = {name: [model for model in models if model.group == name] for name in GROUPS}
    groups = {name: _group(found) for name, found in by_group.items() if found}
    gap = None
    if groups.keys() >= set(TWINS):
        top1, interval = paired_gap(*([m.scores for m in by_group[name]] for name in ("real", "synthetic")))
        top5 = groups["real"]["top5_mean"] - groups["synthetic"]["top5_mean"]
        gap = {"top1": top1, "top1_interval": list(interval), "top5": top5}
    return {"groups": groups, "gap": gap, "top_k": min(TOP_K, num_classes)}


def _group(models: Sequence[ScoredModel]) -> dict[str, Any]:
    group: dict[str, Any] = {
        "training_images": models[0].training_images,
        "models": [_model(model) for model in models],
        "per_class_mean": [
            None if None in shares else float(np.mean(shares))
            for shares in zip(*(model.scores.per_class for model in models), strict=True)
        ],
    }
    for name in ("top1", "top5", "calibration_error"):
        mean, std = mean_and_std([getattr(model.scores, name) for model in models])
        group |= {f"{name}_mean": mean, f"{name}_std": std}
    return group


def _model(model: ScoredModel) -> dict[str, Any]:
    scores = model.scores
    return {
        "model_id": model.model_id,
        "seed": model.seed,
        "images": scores.count,
        "top1": scores.top1,
        "top1_correct": int(scores.correct.sum()),
        "top1_interval": list(scores.top1_interval),
        "top5": scores.top5,
        "top5_correct": int(scores.in_top_k.sum()),
        "calibration_error": scores.calibration_error,
        "per_class": scores.per_class,
        "confusion": scores.confusion.tolist(),
    }


def check_comparable(identities: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `InputError` unless the models (identity by id) differ in nothing but the seed, and synthetic from real.

    A mean over models that differ in more is no mean over seeds, and a gap between them is not the gap of the images.
    Only where there are more images of one kind than of another, as in the paper's sets of 10x to 50x beside the real
    one, may their trainings differ in length.
    """
    first_id, first = next(iter(identities.items()))
    kinds: dict[tuple[str, ...], tuple[str, Mapping[str, Any]]] = {}
    for model_id, identity in identities.items():
        other_id, other = kinds.setdefault(tuple(sorted(identity["data"])), (model_id, identity))
        any_size = identity["images_per_class"] != first["images_per_class"]
        pairs = ((other_id, other, False), (first_id, first, any_size))
        for than_id, than, of_any_size in pairs:
            own = {"seed", *(LENGTH if of_any_size else ())}
            if any(list(one["data"]) == ["real"] for one in (identity, than)):
                own |= OF_GENERATED
            if identity["data"].keys() != than["data"].keys():
                own |= OF_MIXING  # how images are mixed is a matter of the mixed ones
            if _in_common(identity, own, of_any_size) != _in_common(than, own, of_any_size):
                raise InputError(
                    f"models {than_id} and {model_id} differ in more than seed and data; evaluate them apart"
                )
        if identity["data"] != other["data"]:
            raise InputError(f"models {other_id} and {model_id} read different image sets; evaluate them apart")


def _in_common(identity: Mapping[str, Any], own: Collection[str], any_size: bool) -> dict[str, Any]:
    """What a model must share with another: all but some `own` training settings, or the number of images."""
    train = {key: value for key, value in identity["train"].items() if key not in own}
    return {**identity, "train": train, "data": None, **({"images_per_class": None} if any_size else {})}
