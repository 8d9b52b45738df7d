"""Gives the slots of a sweep to its trials, and takes back what a trial that ends early still holds.

Ray Train's controller gives its workers' placement group back itself, but a trial that is stopped or killed takes the
controller with it, and Ray keeps a dead actor's group until the whole job ends: after as many stops as there are slots
nothing could run any more. Ray Train's own remedy asks the dashboard, which is not everywhere. A lease that such a
trial held is given back too: others would wait until it counts as left by the dead.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

import ray
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.artifact import Store
from pipeline.core.lease import withdraw

NAME = "sweep-trial-workers"
"""Of the actor, in the namespace of the sweep's job."""


class TrialWorkers:
    """An actor beside a sweep that knows which trial holds a slot, which placement groups and which lease.

    Tune runs more trials than there are slots, so that the next ones are ready when a slot gets free: their processes
    take seconds to start.

    Args:
        slots: trials that make images or train at a time.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._holding: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._held_s = 0.0
        self._groups: dict[str, list[Any]] = {}
        self._leases: dict[str, tuple[Store, str, str]] = {}
        self._ended: set[str] = set()

    def begin(self, trial: str) -> None:
        """A trial starts, perhaps again: what an earlier try left is given back."""
        self.release(trial)
        self._ended.discard(trial)

    async def take_slot(self, trial: str) -> None:
        """Answers when the trial has a slot; first come, first served."""
        turn = self._waiting[trial] = asyncio.get_running_loop().create_future()
        self._hand_out()
        await turn

    def keep(self, trial: str, group: Any) -> None:
        """A trial has workers in this group; one that came too late is given back at once."""
        self._groups.setdefault(trial, []).append(group)
        if trial in self._ended:
            self.release(trial)

    def keep_lease(self, trial: str, store: Store, directory: str, key: str) -> None:
        """A trial waits for this lease or holds it."""
        self._leases[trial] = (store, directory, key)

    def release(self, trial: str) -> None:
        """A trial has ended: give back what it still has. What is gone already does no harm."""
        self._ended.add(trial)
        for group in self._groups.pop(trial, []):
            remove_placement_group(group)
        self._waiting.pop(trial, None)  # of a process that is dead: nobody listens
        if trial in self._holding:
            self._held_s += time.monotonic() - self._holding.pop(trial)
        self._hand_out()
        if trial in self._leases:
            withdraw(*self._leases.pop(trial))

    def held_s(self) -> float:
        """Seconds that slots were held, summed over slots."""
        now = time.monotonic()
        return self._held_s + sum(now - since for since in self._holding.values())

    def _hand_out(self) -> None:
        while self._waiting and len(self._holding) < self._slots:
            trial = next(iter(self._waiting))
            self._holding[trial] = time.monotonic()
            self._waiting.pop(trial).set_result(None)


def start_trial_workers(slots: int) -> Any:
    """The handle of the sweep's actor; it lives as long as the handle, on the driver's node.

    One that dies starts again and knows nothing: for a while more trials than slots run, and wait for each other's
    CPUs.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(TrialWorkers)
    return actor.options(name=NAME, scheduling_strategy=here).remote(slots)


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
