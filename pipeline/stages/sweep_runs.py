"""The MLflow runs of a sweep's trainings, brought to their end by its driver, and the charts of them."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.artifact import MANIFEST
from pipeline.core.flatten import flatten
from pipeline.core.mlflow_view import VIEW_TAG, chart_settings, how_to_open, sweep_view, view_path
from pipeline.core.model_identity import model_identity, run_parameters
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_report import TrialResult
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.sweep_trial import SweepJob
from pipeline.stages.tracking import end_run, tracked_run
from pipeline.stages.train import drop_checkpoints, train


def settle_runs(job: SweepJob, trials: Sequence[TrialResult], name: str) -> None:
    """Write what trials could not: a stopped or killed one ends no run, one on another node may reach no server.

    Points that are there already stay. A stopped training's checkpoints are removed.

    Args:
        job: the sweep, with its MLflow run.
        trials: that have ended.
        name: of the sweep.
    """
    for trial in trials:
        if not trial.model_dir:
            continue
        config, model_id = job.config(trial.point), trial.model_dir.rpartition("/")[2]
        if trial.state == "failed":
            end_run(config, job.store, "train", model_id, "FAILED", job.parent_run)
            continue
        tags, cost = {"synthclones.trial": trial.trial}, {"cost_device_s": trial.cost or 0.0}
        if job.store.exists(f"{trial.model_dir}/{MANIFEST}"):  # of a stopped trial too, whose twin trained on
            train(config, job.store, parent_run=job.parent_run)  # finds it finished and logs it whole
        else:
            drop_checkpoints(job.store, trial.model_dir)
            tags |= {"synthclones.stopped_early": f"after epoch {trial.epochs}, by sweep {name}"}
        with tracked_run(config, job.store, "train", model_id, {}, {}, parent_run=job.parent_run) as run:
            run.set_tags(tags)
            run.log_metrics(cost, trial.epochs)


def save_charts(run: RunHandle, job: SweepJob, trials: Sequence[TrialResult], name: str, begun: float) -> str | None:
    """Save a view of MLflow's pages: parallel coordinates and curves of the trials. Never raises for MLflow.

    Args:
        run: of the sweep.
        job: the sweep.
        trials: that have ended.
        name: of the sweep.
        begun: when the sweep began, seconds since 1970.

    Returns:
        What a user does to see it; None without tracking, or when it could not be saved now.
    """
    if run.uri is None or run.run_id is None:
        return None
    runs = []
    for trial in trials:
        if trial.accuracy is not None and trial.model_dir:
            config = job.config(trial.point)
            identity, _ = model_identity(config, resolve_recipe(config))
            runs.append(flatten(run_parameters(config, identity)))
    view = sweep_view(f"Sweep {name}", run.run_id, chart_settings(job.sweep.space, runs), begun)
    experiment_id = run.set_experiment_tag(f"{VIEW_TAG}{run.run_id}", view)
    if experiment_id is None:
        return None
    path = view_path(experiment_id, run.run_id)
    run.set_tags({"mlflow.note.content": f"[Charts of the trials]({path})"})
    return how_to_open(run.uri, path)
