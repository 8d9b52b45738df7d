"""A sweep: image sets once, trials over a space by Ray Tune as many at a time as the cluster holds, and its answer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import ray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.lease import LeaseTiming, lease
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.search_space import as_point, check_space, grid
from pipeline.core.sweep_config import IDENTITY, RESULT, SweepConfig
from pipeline.core.sweep_report import (
    State,
    TrialResult,
    best_trial,
    in_order,
    markdown,
    pareto_front,
    plot_png,
    to_csv,
)
from pipeline.core.validation_images import load_validation, synthetic_validation
from pipeline.stages.generate import check_machine, local_cpus
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.shared_images import ImageBill, ensure_images
from pipeline.stages.sweep_runs import save_charts, settle_runs
from pipeline.stages.sweep_trial import ACCURACY, COST, EPOCH, SLOT_S, SweepJob
from pipeline.stages.sweep_tuner import build_tuner, cluster_slots
from pipeline.stages.tracking import tracked_run
from pipeline.stages.trial_workers import start_trial_workers

Say = Callable[[str], object]
LEASE_TIMING = LeaseTiming(heartbeat_s=2.0, ttl_s=20.0)
"""Of the sweep's own lease: two drivers would write one another's state. After a kill the next one waits so long."""


class Sweep:
    """A sweep on a storage root.

    Args:
        settings: what and how it searches.
        base: the preset.
        store: the storage root; image sets and models lie where every job puts them.
        name: of the folder `sweeps/<name>/`.

    Raises:
        InputError: a value of the space makes no valid run, or the folder belongs to another sweep.
    """

    def __init__(self, settings: SweepConfig, base: RunConfig, store: Store, name: str) -> None:
        check_space(settings, base)
        self.settings = settings
        self.base = base
        self.store = store
        self.name = name
        self.directory = f"sweeps/{name}"
        self.points = grid(settings) if settings.search == "grid" else []
        self.num_trials = len(self.points) or settings.num_trials
        config = base.model_dump(mode="json", exclude={"tracking"})
        self.identity = {"sweep": settings.model_dump(mode="json"), "config": config}
        self.id = content_hash([name, self.identity])[:ID_LENGTH]
        self.begun = self._read_begun()
        self.charts: str | None = None
        """What a user does to see the trials in MLflow's pages, when `run` has saved a view of them."""

    def _read_begun(self) -> float | None:
        """When the sweep began, seconds since 1970; None when it has not. Raises `InputError`."""
        path = f"{self.directory}/{IDENTITY}"
        if not self.store.exists(path):
            return None
        found = self.store.read_json(path)
        if found["id"] != self.id:
            raise InputError(
                f"{self.store.uri(self.directory)} was begun with another space or preset; give --name NEW, or the "
                "same options as before"
            )
        return float(found["begun"])

    def result(self) -> dict[str, Any] | None:
        """The answer, when the sweep has ended."""
        path = f"{self.directory}/{RESULT}"
        return self.store.read_json(path) if self.store.exists(path) else None

    def run(self, say: Say, slots: int | None = None, *, retry_failed: bool = False) -> dict[str, Any]:
        """Run the sweep, go on with it, or find it ended. May be killed at any moment; the same call goes on.

        Args:
            say: takes one line for each step.
            slots: trials at a time; default: as many as the cluster holds.
            retry_failed: start the failed trials of an ended sweep again.

        Returns:
            The content of result.json: `trials`, `best`, `front`, images and slots.

        Raises:
            InputError: no trial fits the cluster, or the validation images are not there.
            WorkError: no trial gave a result, now or when the sweep ended.
        """
        before = self.result()
        if before is not None and not (retry_failed and before["failed"]):
            self._track_again(before)
            return _answered(before)
        check_machine(self.base.generate)
        path = f"{self.directory}/lease"
        if self.store.list_names(path):
            say(f"another call holds {self.store.uri(path)}, or was killed: waiting for it to end or to be silent")
        with lease(self.store, path, timing=LEASE_TIMING):
            found = self.result()
            is_new = found is not None and found != before  # another call ended it meanwhile
            facts = found if found is not None and is_new else self._search(say, slots, retry_failed=retry_failed)
        return _answered(facts)

    def _search(self, say: Say, slots: int | None, *, retry_failed: bool) -> dict[str, Any]:
        config = SweepJob(self.settings, self.base, self.store).config({})
        with ray_session(local_cpus(config.generate)):
            at_once = min(cluster_slots(config, slots), self.num_trials)
            with self._tracked() as run:
                job = SweepJob(self.settings, self.base, self.store, run.run_id)
                self._begin()
                self._prepare_validation(job)
                say(f"{self.num_trials} trials, {at_once} at a time")
                start = time.time()
                workers = start_trial_workers(at_once)
                try:
                    results = build_tuner(job, self.directory, self.points, at_once, retry_failed=retry_failed).fit()
                    trial_s = ray.get(workers.held_s.remote())
                finally:
                    ray.kill(workers)
                wall_s = time.time() - start
                trials = [self._trial(job, found) for found in (results[i] for i in range(len(results)))]
                if len(trials) < self.num_trials or any(trial.state == "unfinished" for trial in trials):
                    raise KeyboardInterrupt  # Ray Tune makes a clean end of it, and says nothing
                use = {"slots": at_once, "wall_s": wall_s, "trial_s": trial_s, "slot_use": trial_s / wall_s / at_once}
                facts = self._facts(job, trials) | use
                settle_runs(job, trials, self.name)
                self._write(trials, facts)
                self._track(run, job, trials, facts)
        return facts

    def _tracked(self, *, optional: bool = False) -> AbstractContextManager[RunHandle]:
        params = {**self.settings.model_dump(mode="json", exclude={"space"}), "trials": self.num_trials}
        params |= {f"space.{key}": json.dumps(value) for key, value in self.identity["sweep"]["space"].items()}
        return tracked_run(
            self.base, self.store, "sweep", self.id, params, {}, folder=self.directory, optional=optional
        )

    def _track_again(self, facts: dict[str, Any]) -> None:
        """What a lost MLflow server missed of an ended sweep; points that are there stay."""
        with self._tracked(optional=True) as run:
            if run.run_id is None:  # no tracking, or no server
                return
            job = SweepJob(self.settings, self.base, self.store, run.run_id)
            trials = [TrialResult(**trial) for trial in facts["trials"]]
            settle_runs(job, trials, self.name)
            self._track(run, job, trials, facts)

    def _begin(self) -> None:
        self.begun = self._read_begun()
        if self.begun is None:
            self.begun = time.time()
            about = {"id": self.id, "begun": self.begun, "name": self.name, **self.identity}
            self.store.write_json(f"{self.directory}/{IDENTITY}", about)

    def _prepare_validation(self, job: SweepJob) -> None:
        settings = self.settings.validation
        if settings.source == "synthetic":
            ensure_images(synthetic_validation(job.base, settings), self.store)
        load_validation(job.base, settings, self.store, job.config({}))

    def _trial(self, job: SweepJob, found: Any) -> TrialResult:
        metrics = found.metrics or {}
        point = as_point(self.settings, found.config)
        reason, model_dir, images_per_class, epochs = "", "", 0, 0
        try:
            config = job.config(point)
            images_per_class, epochs = config.images_per_class, config.train.epochs
            model_dir = model_directory(model_identity(config, resolve_recipe(config))[1])
        except InputError as error:
            reason = str(error)
        state: State = "stopped early"
        if found.error is not None:
            state, reason = "failed", reason or last_line(found.error)
        elif not metrics.get("done"):
            state = "unfinished"
        elif metrics.get(EPOCH, 0) >= epochs:  # only the trial itself tells of the last epoch, when its model is there
            state = "finished"
        return TrialResult(
            trial=found.path.rpartition("/")[2],
            state=state,
            point=point,
            images_per_class=images_per_class,
            epochs=int(metrics.get(EPOCH, 0)),
            accuracy=metrics.get(ACCURACY),
            cost=metrics.get(COST),
            seconds=float(metrics.get(SLOT_S, 0.0)),
            ended=float(metrics.get("timestamp", 0.0)),
            model_dir=model_dir,
            reason=reason,
        )

    def _facts(self, job: SweepJob, trials: Sequence[TrialResult]) -> dict[str, Any]:
        assert self.begun is not None
        bill = ImageBill(self.begun)
        for trial in trials:
            if trial.model_dir and (config := job.config(trial.point)).train.data != "real":
                bill.add(config, self.store)
        best = best_trial(trials)
        count = {
            state: sum(trial.state == state for trial in trials) for state in ("finished", "stopped early", "failed")
        }
        return {
            "name": self.name,
            "directory": self.directory,
            "trials": [trial.facts() for trial in in_order(trials)],
            "best": best and best.facts(),
            "front": [trial.trial for trial in pareto_front(trials)],
            "compared_on": self.settings.validation.model_dump(mode="json"),
            "finished": count["finished"],
            "stopped_early": count["stopped early"],
            "failed": count["failed"],
            **bill.facts(),
        }

    def _write(self, trials: Sequence[TrialResult], facts: dict[str, Any]) -> None:
        """table.md, table.csv, plot.png and, last, result.json."""
        title, settings = f"Sweep {self.name}", self.settings.validation
        compared_on = f"{settings.images_per_class} {settings.source} images of each class, none of them trained on"
        table = markdown(trials, title, compared_on, facts)
        self.store.write_bytes(f"{self.directory}/table.md", table.encode())
        self.store.write_bytes(f"{self.directory}/table.csv", to_csv(trials).encode())
        self.store.write_bytes(f"{self.directory}/plot.png", plot_png(trials, title))
        self.store.write_json(f"{self.directory}/{RESULT}", facts)

    def _track(self, run: RunHandle, job: SweepJob, trials: Sequence[TrialResult], facts: dict[str, Any]) -> None:
        run.set_tags({"mlflow.source.name": "python -m tune.sweep", "synthclones.sweep": self.name})
        numbers = {key: value for key, value in facts.items() if isinstance(value, int | float)}
        best = facts["best"]
        if best is not None:
            numbers |= {"best_val_accuracy": best["accuracy"], "best_cost_device_s": best["cost"]}
        run.log_metrics(numbers, step=0)
        for name in ("table.md", "table.csv", "plot.png", RESULT):
            run.log_artifact(name, self.store.read_bytes(f"{self.directory}/{name}"))
        assert self.begun is not None
        self.charts = save_charts(run, job, trials, self.name, self.begun)


def _answered(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an ended sweep. Raises `WorkError` when no trial gave a result."""
    if facts["best"] is None:
        reason = next((trial["reason"] for trial in facts["trials"] if trial["reason"]), "none is known")
        raise WorkError(
            f"none of the {len(facts['trials'])} trials gave a result; first reason: {reason}; mend it and run the "
            "same command with --retry-failed"
        )
    return facts


def last_line(error: BaseException) -> str:
    """Why a trial failed, for people; Ray wraps it in several layers of traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return re.sub(r"^pipeline\.core\.errors\.\w+: ", "", last)
