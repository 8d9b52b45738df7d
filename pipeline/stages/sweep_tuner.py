"""Ray Tune set up for a sweep: search, early stopping, slots, what is kept of it on disk."""

from __future__ import annotations

import json
import os
import warnings
from fnmatch import fnmatch
from functools import partial
from typing import Any

# Must be set before Ray Tune is imported.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # of its three loggers we read one
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "5")  # default 10 and more: what a killed driver forgets
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from pipeline.core.artifact import Store
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.search_space import GRID, Point, suggest
from pipeline.core.sweep_config import SweepConfig
from pipeline.stages.offers import OF_A_TRAINING, OF_AN_ACTOR, await_offer
from pipeline.stages.runtime import belong_to
from pipeline.stages.sweep_trial import ACCURACY, COST, EPOCH, PROJECTED_COST, SweepJob, run_trial
from pipeline.stages.tracking import track_as_part
from pipeline.stages.trial_workers import release_trial

EXPERIMENT = "tune"
"""Ray Tune's own folder in the sweep's: state of trials and of the search, as pickles."""
TRIAL_MEMORY_BYTES = 300 * 2**20
"""All that a trial's own process reserves: it waits for its pool and its workers, which reserve the rest."""


class TrialLines(tune.Callback):
    """A line for every trial that ends, and its workers given back. Ray Tune pickles it, so it holds nothing."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Ray Tune."""
        release_trial(trial.trial_id)
        metrics = trial.last_result or {}
        done = sum(other.is_finished() for other in trials)
        print(
            f"sweep: trial {trial.trial_id} ended after {metrics.get(EPOCH, 0):.0f} epochs, {done} so far: accuracy "
            f"{metrics.get(ACCURACY, float('nan')):.4f}, {metrics.get(COST, float('nan')):.1f} device s",
            flush=True,
        )

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Ray Tune when a trial failed and will be started again."""
        release_trial(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Called by Ray Tune."""
        release_trial(trial.trial_id)
        print(f"sweep: trial {trial.trial_id} failed", flush=True)


class Limiter(ConcurrencyLimiter):
    """Ray's, but a restored one keeps the number that it was made with: a resumed sweep may have other slots."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Called by Ray Tune with what the search was."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})


class GridPoints(BasicVariantGenerator):
    """As `Limiter`, for a grid."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Called by Ray Tune with what the search was."""
        super().set_state({**state, "max_concurrent": self.max_concurrent})  # type: ignore[no-untyped-call]


def build_tuner(job: SweepJob, directory: str, points: list[Point], slots: int, *, retry_failed: bool) -> tune.Tuner:
    """A new experiment, or the one that is there with its trials and the history of its search.

    Args:
        job: the sweep.
        directory: of the sweep under the root.
        points: of a grid; empty for a search.
        slots: trials that make images or train at a time; one more waits, its process started.
        retry_failed: start failed trials of the one that is there again.

    Raises:
        WorkError: what is there of Ray Tune's state is damaged.
    """
    cluster = cluster_address()

    def trial(config: dict[str, Any]) -> None:
        belong_to(cluster)
        track_as_part()
        run_trial(job, config)

    trainable = tune.with_resources(trial, tune.PlacementGroupFactory([{"memory": TRIAL_MEMORY_BYTES}]))
    file_system, path = job.store.filesystem(f"{directory}/{EXPERIMENT}")
    stopping = job.sweep.early_stopping
    settings = tune.TuneConfig(
        search_alg=GridPoints(max_concurrent=slots + 1) if points else Limiter(search(job.sweep), slots + 1),
        scheduler=None if stopping is None else asha(job),
        num_samples=1 if points else job.sweep.num_trials,
        reuse_actors=stopping is None,  # a stopped trial's process must end: its training ends with it
        trial_name_creator=trial_name,
        trial_dirname_creator=trial_name,
    )
    if has_state(job.store, f"{directory}/{EXPERIMENT}"):
        tuner = tune.Tuner.restore(
            path, trainable, resume_unfinished=True, restart_errored=retry_failed, storage_filesystem=file_system
        )
        assert tuner._local_tuner is not None
        tuner._local_tuner._tune_config = settings  # its pickle has the slots of the first call
        return tuner
    return tune.Tuner(
        trainable,
        param_space={GRID: tune.grid_search([json.dumps(point) for point in points])} if points else {},
        tune_config=settings,
        run_config=tune.RunConfig(
            name=EXPERIMENT,
            storage_path=path.rpartition("/")[0],
            storage_filesystem=file_system,
            failure_config=tune.FailureConfig(max_failures=job.sweep.max_failures),
            callbacks=[TrialLines(), JsonLoggerCallback()],
            verbose=0,
        ),
    )


def has_state(store: Store, folder: str) -> bool:
    """Whether Ray Tune can go on: its settings are written seconds before its first trials. Raises `WorkError`."""
    states = [name for name in store.list_names(folder) if fnmatch(name, "experiment_state-*.json")]
    return bool(states) and bool(store.read_json(f"{folder}/{max(states)}")["trial_data"])


def trial_name(trial: Any) -> str:
    """The id alone: settings may hold any text, and this becomes a folder."""
    return str(trial.trial_id)


def search(sweep: SweepConfig) -> OptunaSearch:
    """Draws or TPE over the space as a define-by-run function, so that conditions hold."""
    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=sweep.seed)
    if sweep.search == "tpe":
        sampler = optuna.samplers.TPESampler(
            seed=sweep.seed,
            n_startup_trials=sweep.num_random_trials,
            multivariate=True,
            group=True,  # settings that have conditions are modelled where they are there
            constant_liar=True,  # what runs is not proposed again
        )
    metric: str | list[str] = ACCURACY
    mode: str | list[str] = "max"
    if "cost" in sweep.objectives:
        metric, mode = [ACCURACY, PROJECTED_COST], ["max", "min"]
    return OptunaSearch(partial(suggest, sweep), metric=metric, mode=mode, sampler=sampler)


def asha(job: SweepJob) -> ASHAScheduler:
    """Early stopping on the validation accuracy. Trials count their epochs themselves: a restart counts none twice."""
    stopping = job.sweep.early_stopping
    assert stopping is not None
    searched = job.sweep.space.get("train.epochs")
    epochs = int(max(searched.ends())) if searched else job.config({}).train.epochs
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=ACCURACY,
        mode="max",
        max_t=epochs,
        grace_period=min(stopping.min_epochs, epochs),
        reduction_factor=stopping.reduction_factor,
    )


def slot_needs(config: RunConfig) -> dict[str, float]:
    """What a trial reserves at most at a time: its pool of actors, then its training workers."""
    made, trained = config.generate, config.train
    workers = trained.num_workers * trained.num_cpus_per_worker + (trained.ingest == "stream")
    gpus = trained.num_workers if trained.device == "cuda" else 0
    return {
        "CPU": max(workers, made.num_actors * made.num_cpus_per_actor),
        "GPU": max(gpus, made.num_actors * made.num_gpus_per_actor),
    }


def cluster_slots(config: RunConfig, slots: int | None = None) -> int:
    """Trials at a time: as many as the nodes that are up hold; on a cluster `slots` if given, for nodes may be added.

    Needs a Ray session.

    Raises:
        InputError: no trial fits this machine, or no node of the cluster has what an actor or a worker of a trial
            needs, and none will.
    """
    needs, there = slot_needs(config), dict(ray.cluster_resources())
    holds = {name: there.get(name, 0.0) / need for name, need in needs.items() if need}
    if cluster_address() is not None:
        made, trained = config.generate, config.train
        await_offer({"CPU": made.num_cpus_per_actor, "GPU": made.num_gpus_per_actor}, OF_AN_ACTOR)
        await_offer({"CPU": trained.num_cpus_per_worker, "GPU": int(trained.device == "cuda")}, OF_A_TRAINING)
        return slots or max(1, int(min(holds.values())))
    if lacking := [f"{needs[name]:g} {name}" for name, times in holds.items() if times < 1]:
        raise InputError(
            f"a trial needs {' and '.join(lacking)}, more than this machine has; lower train.num_workers or "
            "generate.num_actors in the sweep's `base`"
        )
    if hasattr(os, "sched_getaffinity"):
        holds["CPU"] = max(1.0, len(os.sched_getaffinity(0)) / needs["CPU"])  # a local Ray may plan with more
    fits = int(min(holds.values()))
    return min(slots or fits, fits)
