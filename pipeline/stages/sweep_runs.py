"""The MLflow runs of a sweep's trainings, brought to their end by its driver."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.core.artifact import MANIFEST
from pipeline.core.sweep_report import TrialResult
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
            end_run(config, job.store, "train", model_id, "FAILED")
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
