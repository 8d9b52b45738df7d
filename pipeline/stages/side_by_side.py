"""Several trainings at once in one Ray, each driven by a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.artifact import Store
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.machine import usable_cpus
from pipeline.core.train_config import TrainConfig
from pipeline.stages.runtime import belong_to
from pipeline.stages.tracking import track_as_part
from pipeline.stages.train import train


def num_slots(settings: TrainConfig) -> int:
    """How many trainings of this shape the CPUs and GPUs hold at a time, at least one.

    On a cluster those of the nodes that are up: what an autoscaler may add is not told to anybody.
    """
    needs = {"CPU": settings.num_workers * settings.num_cpus_per_worker}
    if settings.device == "cuda":
        needs["GPU"] = settings.num_workers
    there: dict[str, float] = ray.cluster_resources() if ray.is_initialized() else {}
    if cluster_address() is None:  # not what a local Ray plans with, which may be more CPUs than there are
        there = {**there, "CPU": usable_cpus()}
    return max(1, int(min(there.get(name, 0) / amount for name, amount in needs.items())))


def _in_a_process(work: Callable[[], dict[str, Any]], cluster: str | None) -> dict[str, Any]:
    belong_to(cluster)
    track_as_part()
    return work()


def _how_it_died(error: ray.exceptions.RayError) -> str:
    """One line for people; Ray's own are paragraphs."""
    again = "run the same command again to go on"
    if isinstance(error, ray.exceptions.NodeDiedError):
        return f"the node that a training's process ran on was lost; {again}"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return (
            "the process of a training was ended because its node ran out of memory; free memory there or train fewer "
            f"at a time (--slots of a study), then {again}"
        )
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return f"the process of a training died ({reason}); {again}"


def train_side_by_side(
    configs: Sequence[RunConfig],
    store: Store,
    slots: int,
    parent_run: str | None = None,
    prepare: Callable[[int], object] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Train every config, at most `slots` at a time, and yield (position, what `train` returned) as they end.

    Needs a running Ray session. A training that fails lets those that run end, then its error is raised; no further
    one is started. What is done or checkpointed is kept.

    Args:
        configs: in the order in which they start.
        store: the storage root.
        slots: trainings at a time.
        parent_run: MLflow's run that theirs are shown under.
        prepare: called with its position before a training starts, in this process, while others run; fails as one.

    Raises:
        InputError: as `train`.
        WorkError: as `train`, or a training's process died.
    """
    prepare = prepare or (lambda _: None)
    if slots == 1:
        for position, config in enumerate(configs):
            prepare(position)
            yield position, train(config, store, parent_run=parent_run)
        return
    # No CPU of its own: it only waits for its workers. No retry: `train` itself restarts workers. On the driver's node,
    # without which nothing goes on anyway: a node of workers may be lost at any time.
    here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)  # not in Ray's types
    remote_train = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_in_a_process)
    waiting = list(enumerate(configs))
    running: dict[Any, int] = {}
    failure: InputError | WorkError | None = None

    def fill() -> None:
        nonlocal failure
        while waiting and failure is None and len(running) < slots:
            position, config = waiting.pop(0)
            try:
                prepare(position)
            except (InputError, WorkError) as error:
                failure = error
                return
            work = partial(train, config, store, parent_run=parent_run)
            running[remote_train.remote(work, cluster_address())] = position

    fill()
    while running:
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        position = running.pop(done)
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, (InputError, WorkError)):
                raise
            failure = failure or error.cause
        except ray.exceptions.RayError as error:
            failure = failure or WorkError(_how_it_died(error))
        else:
            fill()  # first, since the caller scores the one that has ended
            yield position, result
    if failure is not None:
        raise failure
