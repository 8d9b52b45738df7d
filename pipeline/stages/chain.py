"""The whole chain in one call: class names -> prompts -> images -> the twins -> verdict -> summary.

Every step goes on from its own artifact, so the chain may be killed at any moment and run again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.model_identity import TWINS, model_directory, model_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.stages.generate import generate
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.runtime import ray_session
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from pipeline.stages.stage_clock import StageClock

SUMMARY = "summary.json"
REPORT = "report.html"
CLOCK = "clocks"
"""Folder of the stages' seconds, one file per chain."""
OBJECT_STORE_GIB = 1.0
"""Enough for the images of both twins; Ray's own default of 30% of the memory breaks the demo's limit."""

Say = Callable[[str], object]


def run_chain(config: RunConfig, store: Store, say: Say) -> dict[str, Any]:
    """Run what is missing of the chain of a config, for synthetic images and their real twin.

    Args:
        config: of the run; `train.data` is not used, both are trained.
        store: the storage root. `summary.json` and `report.html` are left directly in it.
        say: takes one line for each step.

    Returns:
        The summary: `images`, `synthetic_top1` and `real_top1` (0..1), `gap` (real less synthetic),
        `generate_images_per_s`, `train_images_per_s` (both twins together when they ran side by side), `seconds` (wall,
        by stage, added up over the sessions that worked on it), `mlflow_run_id`, `report`, `set_sha256`, …

    Raises:
        InputError: the config is wrong; nothing was written.
        WorkError: a step failed; the same call goes on.
    """
    recipe = resolve_recipe(config)
    twins = {group: _twin(config, group) for group in TWINS}
    model_dirs = {group: model_directory(model_identity(twin, recipe)[1]) for group, twin in twins.items()}
    chain_id = content_hash([model_dirs, config.evaluate.model_dump(mode="json"), recipe.hash])[:ID_LENGTH]
    if finished := _finished(store, recipe, model_dirs, chain_id):
        say("everything was finished already")
        return finished
    clock = StageClock(store, f"{CLOCK}/{chain_id}.json")
    with ray_session(object_store_gib=OBJECT_STORE_GIB):
        with clock.stage("prompts"):
            prompts = ensure_prompt_table(config, recipe, store)
        say(f"{prompts['rows']} prompts, {prompts['distinct_prompts']} distinct, in {store.uri(recipe.prompts_dir)}")
        with clock.stage("generate"):
            images = generate(config, store)
        made = f"{images['ok']} of {images['rows']} images ok, {images['images_made']} made now"
        say(f"{made}, in {store.uri(recipe.images_dir)}")
        slots = min(num_slots(config.train), len(twins))
        models: dict[str, dict[str, Any]] = {}
        with clock.stage("train"):
            for position, model in train_side_by_side(list(twins.values()), store, slots):
                group = list(twins)[position]
                models[group] = model
                say(
                    f"{group} model: {model['epochs']} epochs, training accuracy {model['accuracy']:.3f}, "
                    f"{model['seconds']:.0f} s, in {store.uri(model['model_dir'])}"
                )
        with clock.stage("evaluate"):
            from pipeline.stages.evaluate import evaluate  # its libraries take seconds to import

            verdict = evaluate(config, store, {group: [directory] for group, directory in model_dirs.items()}, say)
    store.write_bytes(REPORT, store.read_bytes(verdict["report"]))
    rates = [model["images_per_s"] for model in models.values()]
    summary = {
        "chain_id": chain_id,
        "classes": len(recipe.classes),
        "images": len(recipe.classes) * config.images_per_class,
        "set_sha256": images["set_sha256"],
        "synthetic_top1": verdict["synthetic_top1"],
        "real_top1": verdict["real_top1"],
        "gap": verdict["gap"],
        "test_images": verdict["test_images"],
        "generate_images_per_s": images["images_per_s"],
        "train_images_per_s": sum(rates) if slots > 1 else sum(rates) / len(rates),
        "trainings_side_by_side": slots,
        "seconds": {name: round(seconds, 1) for name, seconds in clock.seconds.items()},
        "images_dir": recipe.images_dir,
        "model_dirs": model_dirs,
        "report": store.uri(REPORT),
        "mlflow_run_id": verdict["mlflow_run_id"],
        "mlflow_runs": {
            "generate": images["mlflow_run_id"],
            **{f"train_{group}": model["mlflow_run_id"] for group, model in models.items()},
            "evaluate": verdict["mlflow_run_id"],
        },
    }
    store.write_json(SUMMARY, summary)
    return summary


def _twin(config: RunConfig, group: str) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"data": group})})


def _finished(store: Store, recipe: Recipe, model_dirs: dict[str, str], chain_id: str) -> dict[str, Any] | None:
    """The summary of this very chain, when it and everything it speaks of is still there."""
    needed = [SUMMARY, REPORT, *(f"{directory}/{MANIFEST}" for directory in (recipe.images_dir, *model_dirs.values()))]
    if not all(store.exists(path) for path in needed):
        return None
    summary = store.read_json(SUMMARY)
    return summary if summary["chain_id"] == chain_id else None
