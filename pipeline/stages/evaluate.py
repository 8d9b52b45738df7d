"""Models -> verdict: score them on real test images, compare the twins, write the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import yaml

from pipeline.core.artifact import MANIFEST, Store, sha256_bytes
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.classifier import TrainedClassifier, load_classifier
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.finished import finished
from pipeline.core.flatten import flatten
from pipeline.core.kept_scores import keep_counts, kept_counts, kept_scores
from pipeline.core.model_identity import GROUPS, model_directory, model_identity
from pipeline.core.recipe import Recipe
from pipeline.core.report import render_report
from pipeline.core.report_content import build_report, report_plots
from pipeline.core.report_identity import report_identity
from pipeline.core.robustness import CorruptionCounts, among, check_corruptions, count_corrupted, robustness
from pipeline.core.scoring import check_device, check_sizes, main_set, threads
from pipeline.core.set_scores import set_verdict
from pipeline.core.test_set_opening import MAIN, OpenSet, open_test_sets
from pipeline.core.tracking_uri import ui_command
from pipeline.core.verdict import ScoredModel, check_comparable, verdict
from pipeline.stages.one_worker import belongs_on_a_gpu_node, on_a_gpu_node
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.tracking import tracked_run

Say = Callable[[str], object]


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
    config: RunConfig,
    store: Store,
    model_dirs: Mapping[str, Sequence[str]],
    say: Say = print,
    parent_run: str | None = None,
) -> dict[str, Any]:
    """Score finished models and write `reports/<id>/`; a report of their very weights that is there is not made again.

    Args:
        config: test sets, classes and tracking.
        store: the storage root.
        model_dirs: directories of models by what they were trained on, `synthetic` or `real`; those of one key differ
            in nothing but the seed.
        say: takes one line for each scored model, and for what is left out.
        parent_run: MLflow run of a study that this report is a part of.

    Returns:
        The report's manifest: `report` (path of the page), `synthetic_top1` and `real_top1` (means over seeds, None
        without such models), `gap` (real less synthetic, None without both), `main` (name of the set that these are
        of), `missing_test_sets` (set -> why), …

    Raises:
        InputError: a model or every test set is missing, or one is wrong; models that cannot be compared. Nothing is
            written.
        WorkError: a file is damaged, or a model gives no numbers.
    """
    if belongs_on_a_gpu_node(config.evaluate.device):
        timeout_s = config.generate.stall_timeout_s
        return on_a_gpu_node(evaluate, "evaluate.device", timeout_s, config, store, dict(model_dirs))
    started = time.monotonic()
    check_device(config.evaluate)
    classes = load_class_table(config.classes)
    models = {path: _load(store, path, group, classes) for group in GROUPS for path in model_dirs.get(group, ())}
    if not models:
        raise InputError("no model to evaluate; give at least one --model or --seed")
    check_comparable({path: model.manifest["identity"] for path, model in models.items()})
    settings, input_size = config.evaluate, next(iter(models.values())).train.input_size
    check_sizes(settings, input_size)
    check_corruptions(settings.corruptions, input_size)
    sets, missing = open_test_sets(settings, classes, config.data_dir)
    for line in (*missing.values(), *_left_out(sets)):
        say(f"evaluate: left out: {line}")
    main = main_set(sets)
    identity, report_id = report_identity(settings, sets, models)
    directory = f"reports/{report_id}"
    weights = {path: model.weights_sha256 for path, model in models.items()}
    was_there = store.exists(f"{directory}/{MANIFEST}")  # to print it again needs no MLflow
    done = finished(store, directory, "report", "metrics")
    if done is not None and done.get("weights", weights) != weights:  # older reports do not tell
        done = None  # a model was trained again under its id; kept scores are of its weights, so this is cheap
    params = {**settings.model_dump(mode="json"), "models": ", ".join(sorted(models))}
    parents = {"train": [_name(path) for path in models]}
    with tracked_run(
        config, store, "evaluate", report_id, params, parents, parent_run=parent_run, optional=was_there
    ) as run:
        for name, one in sets.items():
            sizes = {"images": len(one.images), "classes": len(one.overlap)}
            run.log_dataset(name, one.images.fingerprint, one.images.name, sizes, "evaluation")
        if done is not None:  # its numbers and its page once more, for what a lost server missed
            _track(run, done["config"], store.read_json(done["metrics"]), {}, store.read_bytes(done["report"]))
            return {**done, "main": main, "missing_test_sets": missing}
        scored = [_scored(path, model, sets, config, store, say) for path, model in models.items()]
        corrupted = _corrupted(models, sets[main], config, store, say)
        images = sets[main].images
        metrics = {
            "test_set": {"name": images.name, "images": len(images), "fingerprint": images.fingerprint},
            "classes": [{"wnid": wnid, "name": name} for wnid, name in zip(classes.wnids, classes.names, strict=True)],
            "num_calibration_bins": settings.num_calibration_bins,
            **verdict(scored, len(classes)),
            "main": main,
            "test_sets": {name: _about(one, scored, name) for name, one in sets.items()},
            "corruptions": corrupted and robustness(corrupted, settings.corruptions),
        }
        plots = report_plots(scored, classes.names, metrics)
        seconds = time.monotonic() - started
        tracking = None if run.uri is None or run.run_id is None else (run.run_id, ui_command(run.uri))
        page = render_report(
            build_report(config, store, classes, images, models, scored, metrics, plots, seconds, tracking)
        ).encode()
        indent = 1 if len(classes) <= 100 else None  # a confusion of 1,000 classes has a million numbers
        store.write_json(f"{directory}/metrics.json", metrics, indent=indent)
        store.write_bytes(f"{directory}/report.html", page)
        top1 = {f"{name}_top1": group["top1_mean"] for name, group in metrics["groups"].items()}
        manifest = {
            "kind": "report",
            "report_id": report_id,
            "identity": identity,
            "report": f"{directory}/report.html",
            "report_sha256": sha256_bytes(page),
            "metrics": f"{directory}/metrics.json",
            "weights": weights,
            "synthetic_top1": None,
            "real_top1": None,
            **top1,
            "gap": metrics["gap"] and metrics["gap"]["top1"],
            "main": main,
            "test_images": len(images),
            "missing_test_sets": missing,
            "seconds": time.monotonic() - started,
            "mlflow_run_id": run.run_id,
            "config": config.model_dump(mode="json"),
        }
        _track(run, manifest["config"], metrics, plots, page)
        store.write_json(f"{directory}/{MANIFEST}", manifest)
    return manifest


def _left_out(sets: Mapping[str, OpenSet]) -> list[str]:
    return [f"{one.images.left_out}, of {name}" for name, one in sets.items() if one.images.left_out]


def _about(one: OpenSet, scored: Sequence[ScoredModel], name: str) -> dict[str, Any]:
    return {
        "title": one.images.name if name == MAIN else one.spec.title,
        "images": len(one.images),
        "fingerprint": one.images.fingerprint,
        "classes": len(one.overlap),
        "left_out": one.images.left_out,
        **set_verdict([(model.group, model.model_id, model.sets[name]) for model in scored]),
    }


def _corrupted(
    models: Mapping[str, TrainedClassifier], one: OpenSet, config: RunConfig, store: Store, say: Say
) -> list[tuple[str, str, CorruptionCounts]] | None:
    settings = config.evaluate
    if not settings.corruptions.names:
        return None
    counts = {path: kept_counts(store, model, one, settings) for path, model in models.items()}
    networks = {
        path: among(models[path].model.to(settings.device).eval(), one) for path, kept in counts.items() if kept is None
    }
    size = next(iter(models.values())).train.input_size
    if networks:
        with torch.inference_mode(), threads(settings.torch_threads):
            new = count_corrupted(networks, one.images, settings, size, say)
        for path, found in new.items():
            keep_counts(store, models[path], one, settings, found)
        counts |= new
    return [(models[path].train.data, _name(path), found) for path, found in counts.items() if found is not None]


def _scored(
    path: str, model: TrainedClassifier, sets: Mapping[str, OpenSet], config: RunConfig, store: Store, say: Say
) -> ScoredModel:
    start = time.monotonic()
    found, num_new = kept_scores(store, model, sets, config.evaluate)
    main = found[main_set(sets)].images
    assert main is not None
    speed = f"{num_new / (time.monotonic() - start):.0f} images/s" if num_new else "scored before"
    say(
        f"evaluate: {path} ({model.train.data}, seed {model.train.seed}) top-1 {main.top1:.4f} on "
        f"{main.count} images, {speed}"
    )
    return ScoredModel(
        model_id=_name(path),
        group=model.train.data,
        seed=model.train.seed,
        training_images=model.manifest["num_images"],
        scores=main,
        sets={name: one.metrics for name, one in found.items()},
    )


def _track(
    run: RunHandle, config: Mapping[str, Any], metrics: Mapping[str, Any], plots: Mapping[str, bytes], page: bytes
) -> None:
    numbers = {
        name: value
        for name, value in flatten({**metrics["groups"], "gap": metrics["gap"] or {}}).items()
        if isinstance(value, float)
    }
    for name, one in metrics["test_sets"].items():
        for group, found in one["groups"].items():
            numbers |= {f"{name}/{metric}.{group}": spread["mean"] for metric, spread in found.items()}
    for group, found in (metrics["corruptions"] or {"groups": {}})["groups"].items():
        numbers |= {f"corruptions/{name}.{group}": value["mean"] for name, value in found.items() if name != "table"}
    run.log_metrics(numbers, step=0)
    run.log_artifact("config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    run.log_artifact("report.html", page)
    for name, plot in plots.items():
        run.log_artifact(f"{name}.png", plot)


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
