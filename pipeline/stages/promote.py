"""From a sweep's trial to a config of its own: trained at full budget with several seeds, beside the estimate."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import nearest
from pipeline.core.errors import InputError
from pipeline.core.promotion import full_config
from pipeline.core.search_space import describe_point
from pipeline.core.sweep_config import SweepConfig
from pipeline.core.validation_images import load_validation
from pipeline.stages.runtime import ray_session
from pipeline.stages.shared_images import ensure_images
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from pipeline.stages.sweep_trial import score

Say = Callable[[str], object]


def choose_trial(result: dict[str, Any], trial: str | None) -> dict[str, Any]:
    """The trial of that id, or the best one. Raises `InputError` when there is none such."""
    if trial is None:
        best: dict[str, Any] | None = result["best"]
        if best is None:
            raise InputError(
                "no trial of this sweep gave a result, so there is none to promote; see its table.md, then run "
                "`python -m tune.sweep` with --retry-failed"
            )
        return best
    finished = {str(found["trial"]): found for found in result["trials"] if found["state"] == "finished"}
    if trial not in finished:
        raise InputError(f"--trial {trial!r} is no finished trial of this sweep{nearest(trial, finished)}")
    chosen: dict[str, Any] = finished[trial]
    return chosen


def promotion_seeds(searched: int, count: int) -> list[int]:
    """Seeds of a promotion, without the search's own: its luck is a part of what was chosen."""
    return [seed for seed in range(count + 1) if seed != searched][:count]


def config_yaml(config: RunConfig, about: str) -> str:
    """A config as `jobs.train --config FILE` takes it, `about` in its first line."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return f"# {' '.join(about.split())}\n{text}"


def promote(
    sweep: SweepConfig,
    searched: RunConfig,
    base: RunConfig,
    store: Store,
    directory: str,
    trial: dict[str, Any],
    num_seeds: int,
    say: Say,
) -> dict[str, Any]:
    """Train a trial's settings at full budget, score them, and write promotion.json, promotion.md and best.yaml.

    Args:
        sweep: of the trial.
        searched: the preset it searched over; what validation images are depends on it.
        base: the run at full budget that the trial's settings are laid over.
        store: the storage root.
        directory: of the sweep.
        trial: an entry of the sweep's result.
        num_seeds: trainings, each with a seed that the search has not used.
        say: takes one line for each step.

    Returns:
        `estimate` (the sweep's accuracy), `validation` and `test` (mean, std, by seed), `estimate_off` (estimate less
        validation mean), `test_off` (estimate less test mean), `config` (path of the YAML), `models`, `best_model`
        (by validation), `report`; JSON-able.

    Raises:
        InputError: as the stages.
        WorkError: as the stages; what is trained is kept.
    """
    config = full_config(sweep, base, trial["point"])
    seeds = promotion_seeds(config.train.seed, num_seeds)
    runs = [config.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}) for seed in seeds]
    path = f"{directory}/best.yaml"
    about = f"Trial {trial['trial']}: {describe_point(trial['point'])} (tune.promote)"
    store.write_bytes(path, config_yaml(runs[0], about).encode())
    group = config.train.data
    with ray_session():
        if group != "real":
            ensure_images(config, store)
        from pipeline.stages.evaluate import evaluate  # its libraries take seconds to import

        validation = load_validation(searched, sweep.validation, store, config)
        slots = num_slots(config.train)
        by_seed: dict[int, float] = {}
        directories: dict[int, str] = {}
        for position, model in train_side_by_side(runs, store, slots):
            seed = seeds[position]
            directories[seed] = model["model_dir"]
            by_seed[seed] = score(store, model["model_dir"], validation)["val_accuracy"]
            say(f"seed {seed}: {by_seed[seed]:.4f} on the validation images, the sweep said {trial['accuracy']:.4f}")
        verdict = evaluate(config, store, {group: [directories[seed] for seed in seeds]}, say)
    test = store.read_json(verdict["metrics"])["groups"][group]
    found = {
        "trial": trial["trial"],
        "point": trial["point"],
        "config": path,
        "estimate": trial["accuracy"],
        "validation": _spread([by_seed[seed] for seed in seeds]),
        "test": {"mean": test["top1_mean"], "std": test["top1_std"]},
        "seeds": list(seeds),
        "models": [directories[seed] for seed in seeds],
        "best_model": directories[max(by_seed, key=lambda seed: by_seed[seed])],
        "report": verdict["report"],
        "trial_epochs": trial["epochs"],
        "epochs": config.train.epochs,
    }
    found |= {
        "estimate_off": found["estimate"] - found["validation"]["mean"],
        "test_off": found["estimate"] - found["test"]["mean"],
        "directory": directory,
    }
    store.write_json(f"{directory}/promotion.json", found)
    store.write_bytes(f"{directory}/promotion.md", promotion_markdown(found).encode())
    return found


def promotion_markdown(found: dict[str, Any]) -> str:
    """The comparison for people."""
    rows = [
        ("the sweep's estimate", f"{found['estimate']:.4f}", "", found["trial_epochs"]),
        ("validation images, full budget", *_mean(found["validation"]), found["epochs"]),
        ("test images, full budget", *_mean(found["test"]), found["epochs"]),
    ]
    text = [f"# Trial {found['trial']}", "", "| accuracy on | mean | std | epochs |", "|---|---|---|---|"]
    text += [f"| {name} | {mean} | {std} | {epochs} |" for name, mean, std, epochs in rows]
    text += ["", f"The estimate was off by {found['estimate_off']:+.4f} on the same validation images"]
    text[-1] += f" and by {found['test_off']:+.4f} as an estimate of the test accuracy ({len(found['seeds'])} seeds)."
    return "\n".join(text) + "\n"


def _mean(spread: dict[str, Any]) -> tuple[str, str]:
    return f"{spread['mean']:.4f}", "" if spread["std"] is None else f"{spread['std']:.4f}"


def _spread(values: Sequence[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": std, "by_seed": list(values)}
