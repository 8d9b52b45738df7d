"""Models -> verdict: score them on real test images, compare the twins, write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from pipeline.core.artifact import MANIFEST, Store, sha256_bytes
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.classifier import TrainedClassifier, load_classifier
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.model_identity import GROUPS, model_directory, model_identity
from pipeline.core.real_images import LabelledImages, open_test_set
from pipeline.core.recipe import Recipe
from pipeline.core.report import render_report
from pipeline.core.report_content import build_report, confusion_plots
from pipeline.core.scoring import check_device, score
from pipeline.core.tracking_uri import ui_command
from pipeline.core.verdict import ScoredModel, check_comparable, verdict
from pipeline.stages.tracking import RunHandle, tracked_run

Say = Callable[[str], object]
REPORT_VERSION = 1
"""Part of a report's id: raise it when the numbers or the page change."""


def trained_models(
    config: RunConfig, store: Store, recipe: Recipe, seeds: Sequence[int], groups: Sequence[str]
) -> dict[str, list[str]]:
    """Directories of the models that `jobs.train` makes from a config: one for each seed and each of `GROUPS` given.

    Raises:
        InputError: one of them is not there; the message says how to train it.
    """
    found: dict[str, list[str]] = {group: [] for group in groups}
    for group in groups:
        for seed in seeds:
            train = config.train.model_copy(update={"data": group, "seed": seed})
            _, identity_hash = model_identity(config.model_copy(update={"train": train}), recipe)
            directory = model_directory(identity_hash)
            if not store.exists(f"{directory}/{MANIFEST}"):
                raise InputError(
                    f"no model trained on {group} images with seed {seed} ({store.uri(directory)}); run "
                    f"`python -m jobs.train` with the same options and --set train.data={group} --set train.seed={seed}"
                )
            found[group].append(directory)
    return found


def evaluate(
    config: RunConfig, store: Store, model_dirs: Mapping[str, Sequence[str]], say: Say = print
) -> dict[str, Any]:
    """Score finished models and write `reports/<id>/`; a report that is there already is not made again.

    Args:
        config: test set, classes and tracking.
        store: the storage root.
        model_dirs: directories of models by what they were trained on, `synthetic` or `real`; those of one key differ
            in nothing but the seed.
        say: takes one line for each scored model.

    Returns:
        The report's manifest: `report` (path of the page), `synthetic_top1` and `real_top1` (means over seeds, None
        without such models), `gap` (real less synthetic, None without both), `seconds`, `mlflow_run_id`, …

    Raises:
        InputError: a model or the test set is missing or wrong; models that cannot be compared; nothing is written.
        WorkError: a file is damaged, or a model gives no numbers.
    """
    started = time.monotonic()
    check_device(config.evaluate)
    classes = load_class_table(config.classes)
    models = {path: _load(store, path, group, classes) for group in GROUPS for path in model_dirs.get(group, ())}
    if not models:
        raise InputError("no model to evaluate; give at least one --model or --seed")
    check_comparable({path: model.manifest["identity"] for path, model in models.items()})
    images = open_test_set(config.evaluate.test_set, classes, config.data_dir)
    identity = {
        "report_version": REPORT_VERSION,
        "test_set": images.fingerprint,
        "models": sorted(models),
        "num_calibration_bins": config.evaluate.num_calibration_bins,
    }
    report_id = content_hash(identity)[:ID_LENGTH]
    directory = f"reports/{report_id}"
    if store.exists(f"{directory}/{MANIFEST}"):
        done: dict[str, Any] = store.read_json(f"{directory}/{MANIFEST}")
        return done
    params = {**config.evaluate.model_dump(mode="json"), "models": ", ".join(sorted(models))}
    parents = {"train": [_name(path) for path in models]}
    with tracked_run(config, store, "evaluate", report_id, params, parents) as run:
        scored = [_scored(path, model, images, config, len(classes), say) for path, model in models.items()]
        metrics = {
            "test_set": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            "classes": [{"wnid": wnid, "name": name} for wnid, name in zip(classes.wnids, classes.names, strict=True)],
            "num_calibration_bins": config.evaluate.num_calibration_bins,
            **verdict(scored, len(classes)),
        }
        plots = confusion_plots(scored, classes.names)
        seconds = time.monotonic() - started
        tracking = None if run.uri is None or run.run_id is None else (run.run_id, ui_command(run.uri))
        page = render_report(
            build_report(config, store, classes, images, models, scored, metrics, plots, seconds, tracking)
        ).encode()
        store.write_json(f"{directory}/metrics.json", metrics)
        store.write_bytes(f"{directory}/report.html", page)
        top1 = {f"{name}_top1": group["top1_mean"] for name, group in metrics["groups"].items()}
        manifest = {
            "kind": "report",
            "report_id": report_id,
            "identity": identity,
            "report": f"{directory}/report.html",
            "report_sha256": sha256_bytes(page),
            "metrics": f"{directory}/metrics.json",
            "synthetic_top1": None,
            "real_top1": None,
            **top1,
            "gap": metrics["gap"] and metrics["gap"]["top1"],
            "test_images": len(images),
            "seconds": time.monotonic() - started,
            "mlflow_run_id": run.run_id,
            "config": config.model_dump(mode="json"),
        }
        _track(run, config, metrics, plots, page)
        store.write_json(f"{directory}/{MANIFEST}", manifest)
    return manifest


def _scored(
    path: str, model: TrainedClassifier, images: LabelledImages, config: RunConfig, num_classes: int, say: Say
) -> ScoredModel:
    start = time.monotonic()
    scores = score(model, images, config.evaluate)
    rate = len(images) / (time.monotonic() - start)
    say(
        f"evaluate: {path} ({model.train.data}, seed {model.train.seed}) top-1 {scores.top1:.4f} on {len(images)} "
        f"images, {rate:.0f} images/s"
    )
    return ScoredModel(
        model_id=_name(path),
        group=model.train.data,
        seed=model.train.seed,
        training_images=model.manifest["identity"]["images_per_class"] * num_classes,
        scores=scores,
    )


def _track(
    run: RunHandle, config: RunConfig, metrics: Mapping[str, Any], plots: Mapping[str, bytes], page: bytes
) -> None:
    numbers = {
        name: value
        for name, value in flatten({**metrics["groups"], "gap": metrics["gap"] or {}}).items()
        if isinstance(value, float)
    }
    run.log_metrics(numbers, step=0)
    run.log_artifact("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
    run.log_artifact("report.html", page)
    for group, plot in plots.items():
        run.log_artifact(f"confusion_{group}.png", plot)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _load(store: Store, directory: str, group: str, classes: ClassTable) -> TrainedClassifier:
    model = load_classifier(store, directory)
    if model.train.data != group:
        raise InputError(f"{store.uri(directory)} was trained on {model.train.data} images, not on {group} ones")
    if model.wnids != classes.wnids:
        raise InputError(
            f"{store.uri(directory)} knows {len(model.wnids)} classes that are not the {len(classes)} of the config; "
            "set classes to the table it was trained with"
        )
    return model
