"""A function on one worker that has what is asked for, e.g. what an actor of the pool has, watched like the pool."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import ray.exceptions

from pipeline.core.cluster import cluster_address
from pipeline.core.config import GenerateConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.stages.offers import OF_AN_ACTOR
from pipeline.stages.pool_watch import watched
from pipeline.stages.pulse import start_pulse, voice
from pipeline.stages.runtime import ray_session
from pipeline.stages.shard_actor import describe

Answer = dict[str, Any]
BEAT_S = 20.0


@dataclass(frozen=True)
class Worker:
    """What is asked for.

    Args:
        job: named in front of what is said of the wait.
        needs: amount by resource that is reserved.
        settings: that ask for less, for the message when nobody has it.
        stall_timeout_s: without a sign of life, after which it is given up.
    """

    job: str
    needs: Mapping[str, float]
    settings: str
    stall_timeout_s: float


def like_an_actor(settings: GenerateConfig) -> Worker:
    """With the resources of the pool's actors."""
    needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}
    return Worker("generate", needs, OF_AN_ACTOR, settings.stall_timeout_s)


def ask_one_worker(function: Callable[..., Answer], worker: Worker, pulse: Any, *arguments: Any) -> Answer:
    """What `function(*arguments, tell)` answers; `tell` is its `voice`.

    Args:
        function: runs on the worker.
        worker: what it needs.
        pulse: handle of the `Pulse` actor that tells a slow start from none.
        arguments: of the function, before the last one.

    Raises:
        InputError: what the function raised, or no node has what the worker needs, and none will.
        WorkError: what the function raised, the worker died, or nothing has happened for too long.
    """
    needs = worker.needs
    # Not inside the placement group of a sweep's trial, which holds nothing of what is needed.
    task = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], scheduling_strategy="DEFAULT")(_answer)
    awaited = task.remote(function, pulse, *arguments)

    def answers() -> Iterator[Answer]:
        try:
            yield ray.get(awaited)
        except ray.exceptions.RayError as error:  # killed for its memory, or with its node
            raise WorkError(f"the worker died: {describe(error)[:300]}; see Ray's logs, then run again") from error

    leave = partial(ray.cancel, awaited, force=True)
    (answer,) = watched(answers(), leave, pulse, needs, worker.stall_timeout_s, worker.job, worker.settings)
    if "error" in answer:
        raise (InputError if answer["is_input"] else WorkError)(answer["error"])
    return answer


def belongs_on_a_gpu_node(device: str) -> bool:
    """Whether work on a device has to leave the driver, whose node has no GPU on a cluster."""
    return device == "cuda" and cluster_address() is not None


def on_a_gpu_node(function: Callable[..., Answer], device_setting: str, stall_timeout_s: float, *words: Any) -> Answer:
    """What `function(*words)` answers on a node of the cluster with a GPU, while its process lives.

    Args:
        function: runs on the worker; what it prints is printed here.
        device_setting: e.g. `evaluate.device`, for the message when there is none.
        stall_timeout_s: how long is waited for such a node.
        words: its arguments.

    Raises:
        InputError: what the function raised, or there is no such node and none will be started.
        WorkError: what the function raised, the worker died, or no node came in time.
    """
    job = device_setting.partition(".")[0]
    worker = Worker(job, {"CPU": 1, "GPU": 1}, f"{device_setting}=cpu", stall_timeout_s)
    with ray_session():
        return ask_one_worker(_with_beats, worker, start_pulse(), function, words)


def _with_beats(function: Callable[..., Answer], words: tuple[Any, ...], tell: Callable[..., Any]) -> Answer:
    with _beating(tell):
        return function(*words)


@contextmanager
def _beating(tell: Callable[..., Any]) -> Iterator[None]:
    """The work itself says nothing while it is at it; its process does."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            tell("working")

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _answer(function: Callable[..., Answer], pulse: Any, *arguments: Any) -> Answer:
    """Runs on the worker. An error is an answer: Ray would wrap it in several layers."""
    tell = voice(pulse)
    tell("starting")
    try:
        return function(*arguments, tell)
    except Exception as error:  # noqa: BLE001 - whatever it is, the driver must hear it as it is
        return {"error": describe(error), "is_input": isinstance(error, InputError)}
    finally:
        tell("gone")
