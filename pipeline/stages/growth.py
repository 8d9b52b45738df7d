"""From finished trainings on several sizes of one set to a proposal: how many more images each class should get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classifier import load_classifier
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.growth import Counts, allocate, fit_classes, shared_errors
from pipeline.core.growth_report import (
    Proposal,
    as_trained,
    comparison_study,
    growth_config,
    growth_csv,
    growth_facts,
    growth_markdown,
)
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.scoring import check_device, threads
from pipeline.core.sweep_config import ValidationConfig
from pipeline.core.validation import count_confusions
from pipeline.core.validation_images import load_validation
from pipeline.stages.one_worker import belongs_on_a_gpu_node, on_a_gpu_node

Say = Callable[[str], object]


@dataclass(frozen=True)
class GrowthRequest:
    """What is to be proposed.

    Args:
        images: further images of all classes together.
        start: images that every class has.
        validation: real images that the trainings are looked at on; never those of a test set.
        directory: of the results under the root; its last part names the study of the comparison.
        preset: that the trainings were planned over, and that the next commands are called with.
    """

    images: int
    start: int
    validation: ValidationConfig
    directory: str
    preset: RunConfig


def propose_growth(
    trainings: Mapping[int, Sequence[RunConfig]], request: GrowthRequest, store: Store, say: Say
) -> tuple[str, dict[str, Any]]:
    """Score finished trainings class by class, fit, and write the proposal.

    Written into `request.directory`: growth.csv (for `jobs.generate --per-class`), growth.yaml (for `--config` of that
    and of `jobs.train`), a study of both growths under the directory's own name (for `jobs.study --study`), growth.md,
    and last growth.json.

    Args:
        trainings: images per class -> the runs of every seed, of one recipe and as many seeds of every size.
        request: what is to be proposed.
        store: the storage root.
        say: takes a line for each scored model.

    Returns:
        The text for people and the figures, JSON-able.

    Raises:
        InputError: a training is not finished, there are too few, the accuracy does not grow with the images, the
            request is less than a block, or the validation images are not there.
        WorkError: a model is damaged.
    """
    largest = trainings[max(trainings)][0]
    recipe, block = resolve_recipe(largest), largest.generate.batch_size
    if request.images < block:
        raise InputError(f"--images {request.images} is less than one batch of {block}; raise it")
    models = finished_models(trainings, recipe, store)
    what = (trainings, models, recipe, request.validation, store)
    if belongs_on_a_gpu_node(largest.evaluate.device):
        timeout_s = largest.generate.stall_timeout_s
        confusions = on_a_gpu_node(_scored_there, "evaluate.device", timeout_s, *what)["confusions"]
    else:
        confusions = score_models(*what, say=say)
    scored = int(next(iter(confusions.values()))[0][0].sum())
    errors = np.array([[shared_errors(one) for one in confusions[size]] for size in trainings])
    try:
        fit = fit_classes(list(trainings), errors, scored)
    except ValueError as error:
        raise InputError(f"no growth can be proposed: {error}") from error
    counts = allocate(fit.laws, request.start, request.images, block)
    proposal = Proposal(fit, request.start, block, counts, np.sum(confusions[request.start], axis=0))
    facts = growth_facts(proposal, recipe.classes)
    facts |= {
        "sizes": list(trainings),
        "models": models,
        "validation": request.validation.model_dump(mode="json"),
        "confusions": {str(size): np.sum(found, axis=0).tolist() for size, found in confusions.items()},
        "config": largest.model_dump(mode="json"),
    }
    text = growth_markdown(facts)
    study = request.directory.rpartition("/")[2]
    trained = as_trained(trainings[request.start][0], request.preset)
    files = {
        "growth.csv": growth_csv(facts),
        "growth.yaml": growth_config(proposal, recipe.classes, trained),
        f"{study}.yaml": comparison_study(proposal, recipe.classes, trained),
        "growth.md": text,
    }
    for name, content in files.items():
        store.write_bytes(f"{request.directory}/{name}", content.encode())
    store.write_json(f"{request.directory}/growth.json", facts)
    return text, facts


def _scored_there(*what: Any) -> dict[str, Any]:
    """`score_models` as a worker of another node answers it, whose lines are printed here."""
    return {"confusions": score_models(*what, say=lambda line: print(f"grow: {line}", flush=True))}


def finished_models(trainings: Mapping[int, Sequence[RunConfig]], recipe: Recipe, store: Store) -> dict[int, list[str]]:
    """Directories of the models of every size. Raises `InputError` when one is not finished."""
    found = {
        size: [model_directory(model_identity(config, recipe)[1]) for config in configs]
        for size, configs in trainings.items()
    }
    missing = [path for paths in found.values() for path in paths if not store.exists(f"{path}/{MANIFEST}")]
    if missing:
        total = sum(map(len, found.values()))
        raise InputError(
            f"{len(missing)} of {total} trainings are not finished (e.g. {store.uri(missing[0])}); run "
            "`python -m tune.scaling` with the same options first"
        )
    return found


def score_models(
    trainings: Mapping[int, Sequence[RunConfig]],
    models: Mapping[int, Sequence[str]],
    recipe: Recipe,
    validation: ValidationConfig,
    store: Store,
    *,
    say: Say,
) -> dict[int, list[Counts]]:
    """Confusions int64 [C, C] of every model on the validation images, by size. Raises as `propose_growth`."""
    config = trainings[max(trainings)][0]
    check_device(config.evaluate)
    images = load_validation(config, validation, store, config)
    found: dict[int, list[Counts]] = {}
    for size, directories in models.items():
        for directory in directories:
            model = load_classifier(store, directory)
            with threads(config.evaluate.torch_threads):
                network = model.model.to(config.evaluate.device)
                counts = count_confusions(network, images, model.train, len(recipe.classes))
            found.setdefault(size, []).append(counts)
            share = np.trace(counts) / counts.sum()
            say(
                f"{size} per class, seed {model.train.seed}: accuracy {share:.4f} on {counts.sum():,} validation images"
            )
    return found
