"""A function on one worker that has what an actor of the pool has, watched like the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.exceptions

from pipeline.core.config import GenerateConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.stages.pulse import voice, watched
from pipeline.stages.shard_actor import describe

Answer = dict[str, Any]


def ask_one_worker(function: Callable[..., Answer], settings: GenerateConfig, pulse: Any, *arguments: Any) -> Answer:
    """What `function(*arguments, tell)` answers; `tell` is its `voice`.

    Args:
        function: runs on the worker.
        settings: its `num_cpus_per_actor` and `num_gpus_per_actor` are reserved for it.
        pulse: handle of the `Pulse` actor that tells a slow start from none.
        arguments: of the function, before the last one.

    Raises:
        InputError: what the function raised.
        WorkError: what the function raised, the worker died, or no node has what an actor needs.
    """
    needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}

    def answers() -> Iterator[Answer]:
        # Not inside the placement group of a sweep's trial, which holds nothing of what is needed.
        options: dict[str, Any] = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "scheduling_strategy": "DEFAULT"}
        task = ray.remote(**options)(_answer)
        try:
            yield ray.get(task.remote(function, pulse, *arguments))
        except ray.exceptions.RayError as error:  # killed for its memory, or with its node
            raise WorkError(f"the worker died: {describe(error)[:300]}; see Ray's logs, then run again") from error

    (answer,) = watched(answers(), pulse, needs, settings.stall_timeout_s)
    if "error" in answer:
        raise (InputError if answer["is_input"] else WorkError)(answer["error"])
    return answer


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
