"""Signs of life of the pool: every actor tells a small one what it does, so the driver can tell slow from dead."""

from __future__ import annotations

import ctypes
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.schema import FAILED
from pipeline.core.stall import WARN_STARTS, CrashClock, StallClock
from pipeline.stages.offers import OF_AN_ACTOR, check_offered
from pipeline.stages.pool_metrics import GONE, READY, STARTING, PoolMetrics

T = TypeVar("T")
POLL_S = 2.0
WARN_AFTER_S = 30.0
"""A stalled job says so within a minute, on a machine too that is busy enough to make polls and answers slow."""
END_TIMEOUT_S = 10.0
"""For Ray Data to give its actors back."""
PROGRESS = frozenset({"batch", "encoded", "shard"})
"""Events that are work done. All others are signs of life too, but not without an end: see `Pulse.beat`."""


@dataclass(frozen=True)
class Vitals:
    """What the pool has told so far.

    Args:
        quiet_s: seconds since the last sign of life of any actor.
        starting: actors that began to load the model, over the whole run.
        ready: actors that have loaded it, over the whole run.
        images: that went through an engine, those of lost shards included.
        seconds: work of all actors by kind: text_encode, denoise, decode, encode, write.
        failed: images by the kind of error.
        starts: of the actor that was started most often since it last finished a shard.
        last_said: by that actor.
    """

    quiet_s: float = float("inf")
    starting: int = 0
    ready: int = 0
    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    last_said: str = ""

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
        self._failed: Counter[str] = Counter()
        self._starts: Counter[str] = Counter()
        """By actor, since it last finished a shard. One that Ray starts again keeps its id."""
        self._said: dict[str, str] = {}
        self._metrics = PoolMetrics()

    def beat(
        self,
        event: str,
        images: int = 0,
        seconds: Mapping[str, float] | None = None,
        outcomes: Mapping[str, int] | None = None,
        who: str = "",
        says: str = "",
    ) -> None:
        """An actor says that it is `starting`, `ready`, `broken` or `gone`, or what it has done; see `voice`.

        A start is a sign of life, but not of an actor that starts again and again: such a pool would never be quiet.

        Args:
            event: those, that it is `making` a shard, that a `batch` or a `shard` is done or images are `encoded`.
            images: that went through the engine.
            seconds: of work, by part.
            outcomes: finished images by outcome; see `PoolMetrics.add_outcomes`.
            who: the actor's or task's id.
            says: what it is about to do, or why it ends: for the message if it comes to nothing.
        """
        self._events[event] += 1
        if event in ("shard", GONE):
            self._starts.pop(who, None)
            self._said.pop(who, None)
        self._starts.update([who] if event == STARTING else [])
        if says:
            self._said[who] = says
        if event in PROGRESS or self._starts[who] <= WARN_STARTS:
            self._last_s = time.monotonic()
        self._images += images
        for kind, value in (seconds or {}).items():
            self._seconds[kind] = self._seconds.get(kind, 0.0) + value
        self._metrics.add_seconds(seconds or {})
        self._metrics.add_outcomes(outcomes or {})
        for outcome, count in (outcomes or {}).items():
            status, _, kind = outcome.partition(": ")
            self._failed.update({kind: count} if status == FAILED else {})
        if event in (STARTING, READY, GONE):
            self._metrics.set_state(who, event)

    def vitals(self) -> Vitals:
        """The sums so far."""
        worst, starts = max(self._starts.items(), key=lambda item: item[1], default=("", 0))
        return Vitals(
            quiet_s=time.monotonic() - self._last_s,
            starting=self._events[STARTING],
            ready=self._events[READY],
            images=self._images,
            seconds=dict(self._seconds),
            failed=dict(self._failed),
            starts=starts,
            last_said=self._said.get(worst, STARTING),
        )


def start_pulse() -> Any:
    """A `Pulse` on the driver's node, where no lost worker takes it away.

    Ray's control service keeps nothing of its calls: by default that is 3.6 KB of each (docs/results.md).
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    kind = ray.remote(num_cpus=0, max_restarts=-1)(Pulse)
    return kind.options(scheduling_strategy=here, enable_task_events=False).remote()


def voice(pulse: Any) -> Callable[..., Any]:
    """How this actor or task tells a `Pulse` of itself, without waiting for it: its `beat`, signed."""
    context = ray.get_runtime_context()
    return partial(pulse.beat.remote, who=context.get_actor_id() or context.get_task_id())


def heard(beat: Any) -> None:
    """Wait until a word has arrived: a process that dies in the next instant would take it along."""
    with suppress(ray.exceptions.RayError):  # the driver's node may be away
        ray.get(beat, timeout=10)


class _End:
    """After the last item, or instead of it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Watch:
    """Judges what a pool tells; arguments as `watched`."""

    def __init__(self, pulse: Any, needs: Mapping[str, float], stall_timeout_s: float, job: str, settings: str) -> None:
        self._pulse, self._needs, self._job, self._settings = pulse, needs, job, settings
        self._stall = StallClock(min(WARN_AFTER_S, stall_timeout_s), stall_timeout_s)
        self._crashes = CrashClock()

    def look(self, last_row_s: float) -> None:
        """Print what is due; `last_row_s` is when a row came, on the monotonic clock. Raises as `watched`."""
        vitals = ask(self._pulse)
        if not vitals.starting:
            check_offered(self._needs, self._settings, time.monotonic() - last_row_s)
        quiet_s = min(vitals.quiet_s, time.monotonic() - last_row_s)
        crash = self._crashes.look(vitals.starts, vitals.last_said)
        for line in (crash, self._stall.look(quiet_s, situation(vitals, self._needs))):
            if line:
                print(f"{self._job}: {line}", flush=True)


def watched(
    rows: Iterable[T],
    pulse: Any,
    needs: Mapping[str, float],
    stall_timeout_s: float,
    job: str = "generate",
    settings: str = OF_AN_ACTOR,
) -> Generator[T, None, None]:
    """Pass on what a Ray Data iterator gives; say, and in the end raise, when the pool gets nothing done.

    That is when it shows no sign of life, or when one of its actors dies and is started again without an end.

    The iterator itself waits without an end, e.g. for a GPU that no node has, so it runs on a thread of its own.
    Whoever may leave before the last row closes this one (`contextlib.closing`): the exception that makes him leave
    would keep it, and with it Ray Data's execution, beyond the end of Ray's session.

    Args:
        rows: the iterator.
        pulse: handle of a `Pulse` actor that the pool talks to.
        needs: resources that one actor of the pool reserves, for the message.
        stall_timeout_s: quiet seconds after which it is given up.
        job: named in front of what is said.
        settings: that ask for less, for the message.

    Raises:
        InputError: no node has what an actor needs, and none will.
        WorkError: nothing has happened for `stall_timeout_s`, or an actor was started too often for nothing.
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
    watch = _Watch(pulse, needs, stall_timeout_s, job, settings)
    last_row_s = looked_s = time.monotonic()
    try:
        while True:
            try:
                item = found.get(timeout=POLL_S)
            except queue.Empty:
                pass
            else:
                if isinstance(item, _End):
                    if item.error is not None:
                        raise item.error
                    return
                yield item
                last_row_s = time.monotonic()
            if time.monotonic() - looked_s >= POLL_S:
                looked_s = time.monotonic()
                watch.look(last_row_s)
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
        return Vitals()
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
