"""Gives back the placement groups of trials that end before their training does.

Ray Train's controller gives its workers' placement group back itself, but a trial that is stopped or killed takes the
controller with it, and Ray keeps a dead actor's group until the whole job ends: after as many stops as there are slots
nothing could run any more. Ray Train's own remedy asks the dashboard, which is not everywhere.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util import remove_placement_group

NAME = "sweep-trial-workers"
"""Of the actor, in the namespace of the sweep's job."""


class TrialWorkers:
    """An actor beside a sweep that knows which trial has which placement groups."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Any]] = {}
        self._ended: set[str] = set()

    def begin(self, trial: str) -> None:
        """A trial starts, perhaps again: what an earlier try left is given back."""
        self.release(trial)
        self._ended.discard(trial)

    def keep(self, trial: str, group: Any) -> None:
        """A trial has workers in this group; one that came too late is given back at once."""
        self._kept.setdefault(trial, []).append(group)
        if trial in self._ended:
            self.release(trial)

    def release(self, trial: str) -> None:
        """A trial has ended: give back what it still has. A group that is gone already does no harm."""
        self._ended.add(trial)
        for group in self._kept.pop(trial, []):
            remove_placement_group(group)


def start_trial_workers() -> Any:
    """The handle of the sweep's actor; it lives as long as the handle."""
    return ray.remote(num_cpus=0)(TrialWorkers).options(name=NAME, get_if_exists=True).remote()


def begin_trial(trial: str) -> Any:
    """Called by a trial when it starts; the actor's handle, by its name."""
    keeper = ray.get_actor(NAME)
    ray.get(keeper.begin.remote(trial))
    return keeper


def release_trial(trial: str) -> None:
    """Called by the sweep's driver when a trial has ended."""
    with suppress(ValueError):  # the sweep itself is ending
        ray.get_actor(NAME).release.remote(trial)


class WorkersTold(WorkerGroupCallback):  # type: ignore[misc]  # mypy does not see Ray's lazy import
    """Tells `TrialWorkers` of every group of workers that a training starts.

    Args:
        keeper: handle of the actor.
        trial: id.
    """

    def __init__(self, keeper: Any, trial: str) -> None:
        self._keeper = keeper
        self._trial = trial

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Called by Ray Train's controller before the workers train."""
        group = worker_group.get_worker_group_state().placement_group_handle.placement_group
        ray.get(self._keeper.keep.remote(self._trial, group))
