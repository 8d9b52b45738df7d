"""Signs of life of the pool: every actor tells a small one what it does, so the driver can tell slow from dead."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.stall import StallClock
from pipeline.stages.offers import OF_AN_ACTOR, check_offered
from pipeline.stages.pool_metrics import GONE, READY, STARTING, PoolMetrics

if TYPE_CHECKING:  # torch and diffusers, which only a worker needs
    from pipeline.core.shard_maker import OnBatch

T = TypeVar("T")
POLL_S = 2.0
WARN_AFTER_S = 30.0
"""A stalled job says so within a minute, on a machine too that is busy enough to make polls and answers slow."""
END_TIMEOUT_S = 10.0
"""For Ray Data to give its actors back."""


@dataclass(frozen=True)
class Vitals:
    """What the pool has told so far.

    Args:
        quiet_s: seconds since the last word of any actor.
        starting: actors that began to load the model, over the whole run.
        ready: actors that have loaded it, over the whole run.
        images: that went through an engine, those of lost shards included.
        seconds: work of all actors by kind: text_encode, denoise, decode, encode, write.
    """

    quiet_s: float
    starting: int
    ready: int
    images: int
    seconds: dict[str, float]

    def work_line(self) -> str:
        """`seconds: denoise 120.1, decode 20.0, …`: what all actors together spent, the most first."""
        parts = sorted(self.seconds.items(), key=lambda item: -item[1])
        return "seconds: " + (", ".join(f"{kind} {value:.1f}" for kind, value in parts) or "not known")


class Pulse:
    """The small actor. It reserves no CPU: a call is a few additions."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()
        self._events: Counter[str] = Counter()
        self._images = 0
        self._seconds: dict[str, float] = {}
        self._metrics = PoolMetrics()

    def beat(
        self,
        event: str,
        images: int = 0,
        seconds: Mapping[str, float] | None = None,
        outcomes: Mapping[str, int] | None = None,
        who: str = "",
    ) -> None:
        """An actor says that it is `starting`, `ready` or `gone`, or what it has done; see `voice`.

        Args:
            event: those, or that a `batch` or a `shard` is done or images are `encoded`.
            images: that went through the engine.
            seconds: of work, by part.
            outcomes: finished images by outcome; see `PoolMetrics.add_outcomes`.
            who: the actor's or task's id.
        """
        self._last_s = time.monotonic()
        self._events[event] += 1
        self._images += images
        for kind, value in (seconds or {}).items():
            self._seconds[kind] = self._seconds.get(kind, 0.0) + value
        self._metrics.add_seconds(seconds or {})
        self._metrics.add_outcomes(outcomes or {})
        if event in (STARTING, READY, GONE):
            self._metrics.set_state(who, event)

    def vitals(self) -> Vitals:
        """The sums so far."""
        quiet_s = time.monotonic() - self._last_s
        return Vitals(quiet_s, self._events["starting"], self._events["ready"], self._images, dict(self._seconds))


def start_pulse() -> Any:
    """A `Pulse` on the driver's node, where no lost worker takes it away."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, max_restarts=-1)(Pulse).options(scheduling_strategy=here).remote()


def voice(pulse: Any) -> OnBatch:
    """How this actor or task tells a `Pulse` of itself, without waiting for it: its `beat`, signed."""
    context = ray.get_runtime_context()
    return partial(pulse.beat.remote, who=context.get_actor_id() or context.get_task_id())


class _End:
    """After the last item, or instead of it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def watched(
    rows: Iterable[T], pulse: Any, needs: Mapping[str, float], stall_timeout_s: float, settings: str = OF_AN_ACTOR
) -> Generator[T, None, None]:
    """Pass on what a Ray Data iterator gives; say, and in the end raise, when the pool shows no sign of life.

    The iterator itself waits without an end, e.g. for a GPU that no node has, so it runs on a thread of its own.
    Whoever may leave before the last row closes this one (`contextlib.closing`): the exception that makes him leave
    would keep it, and with it Ray Data's execution, beyond the end of Ray's session.

    Args:
        rows: the iterator.
        pulse: handle of a `Pulse` actor that the pool talks to.
        needs: resources that one actor of the pool reserves, for the message.
        stall_timeout_s: quiet seconds after which it is given up.
        settings: that ask for less, for the message.

    Raises:
        InputError: no node has what an actor needs, and none will.
        WorkError: nothing has happened for `stall_timeout_s`.
        Exception: what `rows` raised.
    """
    found: queue.Queue[T | _End] = queue.Queue()

    def pull() -> None:
        try:
            for row in rows:
                found.put(row)
            found.put(_End())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that waits
            found.put(_End(error))

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    clock = StallClock(min(WARN_AFTER_S, stall_timeout_s), stall_timeout_s)
    last_row_s = time.monotonic()
    try:
        while True:
            try:
                item = found.get(timeout=POLL_S)
            except queue.Empty:
                vitals = ask(pulse)
                if not vitals.starting:
                    check_offered(needs, settings, time.monotonic() - last_row_s)
                quiet_s = min(vitals.quiet_s, time.monotonic() - last_row_s)
                if line := clock.look(quiet_s, situation(vitals, needs)):
                    print(f"generate: {line}", flush=True)
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            last_row_s = time.monotonic()
            yield item
    finally:
        _end(thread)


def _end(thread: threading.Thread) -> None:
    """Make a thread leave the iterator it waits in, which shuts Ray Data's execution down.

    Ray Data has no public way to end an execution whose first row is still awaited. One that is left running outlives
    Ray's shutdown, prints a traceback, and joins the cluster again.
    """
    if thread.is_alive():
        leave = ctypes.py_object(SystemExit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), leave)
        thread.join(END_TIMEOUT_S)  # in C++ it hears nothing: then the process's end is its end


def ask(pulse: Any) -> Vitals:
    """The vitals of a `Pulse` actor; nobody's when it does not answer, as after the loss of its node."""
    try:
        vitals: Vitals = ray.get(pulse.vitals.remote(), timeout=10)
    except (ray.exceptions.RayActorError, ray.exceptions.LocalRayletDiedError, ray.exceptions.GetTimeoutError):
        return Vitals(float("inf"), 0, 0, 0, {})
    return vitals


def situation(vitals: Vitals, needs: Mapping[str, float]) -> str:
    """What a quiet pool waits for, as far as it can be told."""
    there = ray.cluster_resources()
    wanted = ", ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
    has = ", ".join(f"{there.get(name, 0):g} {name}" for name, amount in needs.items() if amount)
    lack = f"each needs {wanted or 'nothing'}, all nodes together have {has or 'enough'}"
    if any(there.get(name, 0) < amount for name, amount in needs.items()):
        lost = " any more" if vitals.ready or vitals.starting else ""
        return f"no actor could start{lost}; {lack}"
    if vitals.ready:
        return (
            f"actors were started {vitals.starting} times and got ready {vitals.ready} times so far, and none has "
            "finished a batch since"
        )
    if vitals.starting:
        return f"{vitals.starting} actors are loading the model"
    return f"no actor could start; {lack}"
