"""A sweep's best trial as a config, trained again at full budget with several seeds: was the sweep right?

    python -m tune.promote --preset fashion

Leaves sweeps/NAME/best.yaml, which jobs.train takes with --config, and promotion.md. Stopped, the same command goes on.
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import validate
from pipeline.core.errors import InputError, WorkError
from pipeline.core.model_identity import registered_name
from pipeline.core.promotion import check_same_settings
from pipeline.core.sweep_config import IDENTITY, RESULT, SweepConfig


@click.command(help=__doc__)
@job_options_with(plans=True)
@click.option("--sweep", default="fashion", show_default=True, metavar="NAME", help="Folder of an ended sweep.")
@click.option("--trial", metavar="ID", help="A finished trial, e.g. of the Pareto front; default: the most accurate.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings.")
@click.option("--alias", metavar="NAME", help="Register the best of the seeds, by validation, in MLflow under this.")
def main(job: JobContext, sweep: str, trial: str | None, seeds: int, alias: str | None) -> None:
    """Write the config of a trial, train it, and say how far the sweep's estimate was off."""
    if not sweep.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--sweep {sweep!r} is no sweep's name: those have letters, digits, - and _")
    if alias and not job.config.tracking.enabled:
        raise InputError("--alias needs MLflow's registry, and tracking.enabled is false")
    directory, again = f"sweeps/{sweep}", f"run `python -m tune.sweep --name {sweep}` with the same options first"
    begun = _begun(job.store, directory)
    if begun is not None:
        check_same_settings(begun[1], job.config, sweep)
    if job.dry_run:
        there = job.store.exists(f"{directory}/{RESULT}")
        state = "has ended" if there else "has not ended yet"
        job.finish(f"promote: sweep {sweep} {state}; {seeds} trainings at full budget", {"ended": there})
        return
    if begun is None or not job.store.exists(f"{directory}/{RESULT}"):
        missing = IDENTITY if begun is None else RESULT
        raise InputError(f"{job.store.uri(directory)} has no {missing}: the sweep has not ended; {again}")
    result = job.store.read_json(f"{directory}/{RESULT}")
    from pipeline.stages.promote import (  # torch and Ray take seconds to import
        choose_trial,
        promote,
        promotion_markdown,
    )

    found = promote(
        *begun,
        job.config,
        job.store,
        directory,
        choose_trial(result, trial),
        seeds,
        lambda line: click.echo(f"promote: {line}"),
    )
    folder = job.store.uri(directory)
    human = f"\n{promotion_markdown(found)}\nbest.yaml, promotion.md and promotion.json in {folder}"
    if alias:
        from pipeline.stages.model_registry import register_model

        name = registered_name(job.config)
        found["registered"] = register_model(job.config, job.store, found["best_model"], name, alias)
        human += f"\n{found['best_model']} is {found['registered']['model_uri']}"
    job.finish(human, found)


def _begun(store: Store, directory: str) -> tuple[SweepConfig, RunConfig] | None:
    """A begun sweep and the run that it searched over; None when there is none. Raises `InputError`."""
    path = f"{directory}/{IDENTITY}"
    if not store.exists(path):
        return None
    about = store.read_json(path)
    if not {"sweep", "config"} <= about.keys():
        raise WorkError(f"{store.uri(path)} is damaged (no sweep and config); begin the sweep under another --name")
    return validate(SweepConfig, about["sweep"], f"{path}: "), validate(RunConfig, about["config"], f"{path}: ")


if __name__ == "__main__":
    run_job(main)
