"""Gathers what the report shows from a storage root: pictures, plots, costs, identities, versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import numpy as np

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classes import ClassTable
from pipeline.core.classifier import TrainedClassifier
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered
from pipeline.core.flatten import flatten
from pipeline.core.gallery import (
    ClassRow,
    chosen_examples,
    data_uri,
    fill_generated,
    pictures_per_class,
    scored_picture,
    shown_classes,
)
from pipeline.core.identity import ID_LENGTH, num_shards, split_image_id
from pipeline.core.image_set import published_shards, read_columns, read_identity, shard_path
from pipeline.core.model_identity import GROUPS
from pipeline.core.plots import MIN_AXES, confusion_png, curves_png, spider_png
from pipeline.core.real_images import LabelledImages
from pipeline.core.report import Report, Stage
from pipeline.core.shift import shift_rows, spider_values
from pipeline.core.verdict import ScoredModel

PACKAGES = ("torch", "torchvision", "diffusers", "transformers", "ray", "mlflow", "numpy", "scikit-learn")
CONFUSION = "confusion_"
SEARCHED_PER_PICTURE = 4
"""Images of a class that are looked at for each one shown, of which some may have failed or been flagged."""
IMAGE_COLUMNS = ["image_id", "class_index", "class_name", "prompt", "seed", "image", "status"]


def report_plots(scored: Sequence[ScoredModel], names: Sequence[str], metrics: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files by name: `confusion_<twin>`, all its seeds added up, and `spider` when there are enough test sets."""
    found = {group: [model.scores.confusion for model in scored if model.group == group] for group in GROUPS}
    plots = {
        f"{CONFUSION}{group}": confusion_png(np.sum(parts, axis=0), names) for group, parts in found.items() if parts
    }
    axes, values = spider_values(metrics)
    return {**plots, "spider": spider_png(axes, values)} if len(axes) >= MIN_AXES else plots


def build_report(
    config: RunConfig,
    store: Store,
    classes: ClassTable,
    images: LabelledImages,
    trained: Mapping[str, TrainedClassifier],
    scored: Sequence[ScoredModel],
    metrics: Mapping[str, Any],
    plots: Mapping[str, bytes],
    seconds: float,
    tracking: tuple[str, str] | None,
) -> Report:
    """Everything that the page shows.

    Args:
        config: of the evaluation.
        store: the storage root; an image set that is no longer in it is left out of the gallery.
        classes: in label order.
        images: the test set.
        trained: models by directory.
        scored: their scores.
        metrics: content of metrics.json.
        plots: of `report_plots`.
        seconds: the evaluation took so far.
        tracking: (MLflow run id, command that opens it), or None.
    """
    image_set = next((m.manifest["identity"]["data"].get("image_set") for m in trained.values()), None)
    images_dir = f"images/{image_set[:ID_LENGTH]}" if image_set else None
    images_per_class = next(iter(trained.values())).manifest["identity"]["images_per_class"]
    histories = [(model.train.data, _history(store, directory)) for directory, model in trained.items()]
    identities = {"image set": images_dir} if images_dir else {}
    identities |= {f"model ({m.train.data}, seed {m.train.seed})": directory for directory, m in trained.items()}
    return Report(
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        metrics=metrics,
        class_names=classes.names,
        rows=_rows(store, images_dir, images_per_class, classes, images, scored[0], metrics),
        confusions=[
            (name.removeprefix(CONFUSION), data_uri(plot)) for name, plot in plots.items() if name.startswith(CONFUSION)
        ],
        spider=data_uri(plots["spider"]) if "spider" in plots else None,
        shift=shift_rows(metrics),
        curves=data_uri(curves_png(histories)),
        stages=[
            *_generate_cost(store, images_dir),
            *_train_costs(trained),
            Stage("evaluate", f"{len(scored)} models on {len(images):,} test images", seconds),
        ],
        identities={**identities, "storage root": covered(store.root)},
        settings={name: covered(str(value)) for name, value in flatten(config.model_dump(mode="json")).items()},
        versions={"python": platform.python_version(), **{package: version(package) for package in PACKAGES}},
        tracking=None if tracking is None else (tracking[0], covered(tracking[1])),
    )


def _rows(
    store: Store,
    images_dir: str | None,
    images_per_class: int,
    classes: ClassTable,
    images: LabelledImages,
    shown: ScoredModel,
    metrics: Mapping[str, Any],
) -> list[ClassRow]:
    labels = shown_classes(metrics["groups"][shown.group]["per_class_mean"])
    rows = {label: ClassRow(classes.names[label], classes.wnids[label]) for label in labels}
    if images_dir is not None:
        per_class = min(pictures_per_class(len(rows)), images_per_class)
        fill_generated(rows, _image_rows(store, images_dir, len(classes), images_per_class, per_class), per_class)
    for label, row in rows.items():
        row.tested = [
            scored_picture(images.image(position), shown.scores, position, classes.names)
            for position in chosen_examples(shown.scores, label)
        ]
    return list(rows.values())


def _image_rows(
    store: Store, images_dir: str, num_classes: int, images_per_class: int, wanted: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Shard and row of the images of a set that a model was trained on, in their order, read as they are wanted.

    Only of the shards that hold `SEARCHED_PER_PICTURE` images for each of the `wanted` of a class: one whose images
    were all flagged would have a whole set read, which may be terabytes. Raises `WorkError`.
    """
    published = published_shards(store, images_dir)
    if not published:
        return
    shard_size = int(read_identity(store, images_dir)["shard_size"])
    searched = min(images_per_class, SEARCHED_PER_PICTURE * wanted)
    for shard in range(num_shards(num_classes, searched, shard_size)):
        path = shard_path(images_dir, shard)
        if shard not in published:
            continue
        for row in read_columns(store, path, IMAGE_COLUMNS).to_pylist():
            if split_image_id(row["image_id"])[1] < images_per_class:
                yield store.uri(path), row


def _history(store: Store, model_dir: str) -> list[dict[str, Any]]:
    lines = store.read_bytes(f"{model_dir}/metrics.jsonl").decode().splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _generate_cost(store: Store, images_dir: str | None) -> list[Stage]:
    if images_dir is None or not store.exists(f"{images_dir}/{MANIFEST}"):
        return []
    manifest = store.read_json(f"{images_dir}/{MANIFEST}")
    return [Stage("generate", f"{manifest['rows']:,} images", manifest["seconds"], manifest["images_per_s"])]


def _train_costs(trained: Mapping[str, TrainedClassifier]) -> list[Stage]:
    return [
        Stage(
            "train",
            f"{model.train.epochs} epochs on {model.train.data} images, seed {model.train.seed}",
            model.manifest["seconds"],
            model.manifest["images_per_s"],
        )
        for model in trained.values()
    ]
