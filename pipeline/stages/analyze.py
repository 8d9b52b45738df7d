"""Encoders -> four numbers of their features on the test set and a t-SNE map of them, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.encoders import Encoder
from pipeline.core.feature_analysis import FeatureNumbers, analyse, first_of_each_class, map_of_features
from pipeline.core.features import Features, check_device, features_of
from pipeline.core.finished import finished
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.metrics import mean_and_std
from pipeline.core.plots import scatter_png
from pipeline.core.real_images import LabelledImages
from pipeline.core.scoring import check_sizes, main_set
from pipeline.core.test_set_opening import open_test_sets
from pipeline.stages.one_worker import belongs_on_a_gpu_node, on_a_gpu_node
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.tracking import tracked_run

Say = Callable[[str], object]
ANALYSIS_VERSION = 1
"""Part of a result's id: raise it when the numbers or the picture change."""
NUMBERS = ("sparsity", "nonzero_mean", "intra_class_distance", "redundancy", "constant_columns", "coding_length")
"""Of `FeatureNumbers`, that a table shows."""


def analyze(config: RunConfig, store: Store, encoders: Sequence[Encoder], say: Say) -> dict[str, Any]:
    """Look at every encoder's features of the test set and write `analysis/<id>/`; a finished one is not made again.

    Args:
        config: test set, constants and tracking.
        store: the storage root.
        encoders: frozen; those of one group are averaged.
        say: takes one line for each encoder.

    Returns:
        The manifest: `metrics` and `map` (paths; `map` is None when `analyze.tsne_images` is 0), `seconds`, …

    Raises:
        InputError: the test set or the device is not there, or an image cannot be read.
        WorkError: features are no numbers or damaged.
    """
    if belongs_on_a_gpu_node(config.evaluate.device):
        timeout_s = config.generate.stall_timeout_s
        return on_a_gpu_node(analyze, "evaluate.device", timeout_s, config, store, encoders, print)
    started = time.monotonic()
    check_device(config.evaluate.device, "evaluate.device")
    classes = load_class_table(config.classes)
    sets, missing = open_test_sets(config.evaluate, classes, config.data_dir)
    for line in missing.values():
        say(f"analyze: left out: {line}")
    images = sets[main_set(sets)].images
    for encoder in encoders:
        check_sizes(config.evaluate, encoder.input_size)
    constants = config.analyze.model_dump(mode="json")
    identity = {
        "analysis_version": ANALYSIS_VERSION,
        "encoders": [[encoder.group, encoder.fingerprint] for encoder in encoders],
        "images": images.fingerprint,
        "constants": constants,
    }
    if config.evaluate.resize is not None:
        identity["resize"] = config.evaluate.resize
    analysis_id = content_hash(identity)[:ID_LENGTH]
    directory = f"analysis/{analysis_id}"
    done = finished(store, directory, "metrics", "map")
    parents = {"train": [encoder.id for encoder in encoders if encoder.model_dir]}
    with tracked_run(config, store, "analyze", analysis_id, constants, parents, optional=done is not None) as run:
        if done is not None:  # its numbers and its map once more, for what a lost server missed
            picture = None if done["map"] is None else store.read_bytes(done["map"])
            _track(run, done["config"], store.read_json(done["metrics"])["rows"], picture)
            return done
        numbers: list[tuple[Encoder, FeatureNumbers]] = []
        maps: dict[str, Any] = {}
        labels = chosen = None
        for encoder in encoders:
            features, labels = _features(config, store, encoder, images)
            numbers.append((encoder, analyse(features, labels, config.analyze)))
            if config.analyze.tsne_images and encoder.group not in maps:
                chosen = first_of_each_class(labels, config.analyze.tsne_images)
                maps[encoder.group] = map_of_features(features[chosen], config.analyze.tsne_perplexity)
            say(f"analyze: {encoder.group} {encoder.id} {_words(numbers[-1][1])}")
        rows = _rows(numbers)
        metrics = {
            "constants": constants,
            "test_set": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            "rows": rows,
        }
        store.write_json(f"{directory}/metrics.json", metrics)
        picture = None
        if labels is not None and chosen is not None:
            picture = scatter_png(list(maps.items()), labels[chosen], classes.names)
            store.write_bytes(f"{directory}/map.png", picture)
        manifest: dict[str, Any] = {
            "kind": "analysis",
            "analysis_id": analysis_id,
            "identity": identity,
            "metrics": f"{directory}/metrics.json",
            "map": f"{directory}/map.png" if maps else None,
            "seconds": time.monotonic() - started,
            "mlflow_run_id": run.run_id,
            "config": config.model_dump(mode="json"),
        }
        _track(run, manifest["config"], rows, picture)
        store.write_json(f"{directory}/{MANIFEST}", manifest)
    return manifest


def _track(run: RunHandle, config: dict[str, Any], rows: Sequence[dict[str, Any]], picture: bytes | None) -> None:
    run.log_metrics({f"{row['group']}/{n}": row[n]["mean"] for row in rows for n in NUMBERS if row[n]}, step=0)
    run.log_artifact("config.yaml", yaml.safe_dump(config, sort_keys=False))
    if picture is not None:
        run.log_artifact("map.png", picture)


def _features(config: RunConfig, store: Store, encoder: Encoder, images: LabelledImages) -> Features:
    settings = config.evaluate
    return features_of(
        encoder,
        images,
        store,
        batch_size=settings.batch_size,
        device=settings.device,
        torch_threads=settings.torch_threads,
        resize=settings.resize,
    )


def _rows(numbers: Sequence[tuple[Encoder, FeatureNumbers]]) -> list[dict[str, Any]]:
    """One row per group: of each number its mean and deviation over the group's encoders, None where it has none."""
    rows = []
    for group in dict.fromkeys(encoder.group for encoder, _ in numbers):
        own = [(encoder, found) for encoder, found in numbers if encoder.group == group]
        row: dict[str, Any] = {"group": group, "encoders": {e.id: found.as_dict() for e, found in own}}
        for name in NUMBERS:
            values = [getattr(found, name) for _, found in own]
            mean, std = (None, None) if None in values else mean_and_std(values)
            row[name] = None if mean is None else {"mean": mean, "std": std}
        rows.append(row)
    return rows


def _words(found: FeatureNumbers) -> str:
    told = found.as_dict()
    return ", ".join(f"{name} {told[name]:.4g}" for name in NUMBERS if told[name] is not None)
