"""Signs of life of the pool: every actor tells a small one what it does, so the driver can tell slow from dead."""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.core.schema import FAILED
from pipeline.core.stall import WARN_STARTS
from pipeline.stages.pool_metrics import GONE, READY, STARTING, PoolMetrics

MAKING, SHARD, FOUND = "making", "shard", "found"
PROGRESS = frozenset({"batch", "encoded", SHARD, FOUND})
"""Events that are work done. All others are signs of life too, but not without an end: see `Pulse.beat`."""


MAX_SILENT = 20
"""Actors that are told of at a time: the driver asks every 2 s."""


@dataclass(frozen=True)
class Silent:
    """An actor at work: its id and its node's, seconds since its last word, and what it said that it does."""

    who: str
    node: str
    seconds: float
    said: str


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
        silent: actors at work, those first whose last word is the oldest; `MAX_SILENT` at most.
    """

    quiet_s: float = float("inf")
    starting: int = 0
    ready: int = 0
    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    last_said: str = ""
    silent: tuple[Silent, ...] = ()

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
        self._heard: dict[str, tuple[float, str, str]] = {}
        """By actor that is at work: when it was last heard of, what it then said that it does, and its node."""
        self._in_flight: Counter[str] = Counter()
        """Shards that each actor makes at the moment."""
        self._metrics = PoolMetrics()

    def beat(
        self,
        event: str,
        images: int = 0,
        seconds: Mapping[str, float] | None = None,
        outcomes: Mapping[str, int] | None = None,
        who: str = "",
        says: str = "",
        node: str = "",
    ) -> None:
        """An actor says that it is `starting`, `ready`, `broken` or `gone`, or what it has done; see `voice`.

        A start is a sign of life, but not of an actor that starts again and again: such a pool would never be quiet.

        Args:
            event: those, that it is `making` a shard or has `found` it made, that a `batch` or the `shard` is done or
                images are `encoded`.
            images: that went through the engine.
            seconds: of work, by part.
            outcomes: finished images by outcome; see `PoolMetrics.add_outcomes`.
            who: the actor's or task's id.
            node: id of the node that it runs on.
            says: what it does from now on, or why it ends: for the message if it comes to nothing.
        """
        self._events[event] += 1
        self._note(event, who, says, node)
        if event in (SHARD, FOUND, GONE):
            self._starts.pop(who, None)
            self._said.pop(who, None)
        self._starts.update([who] if event == STARTING else [])
        if says and event != STARTING:  # of one that dies again and again: what it did before
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

    def _note(self, event: str, who: str, says: str, node: str) -> None:
        """Who is at work, and what it said last; an actor without a shard has nothing to say."""
        self._in_flight[who] += {MAKING: 1, SHARD: -1}.get(event, 0)
        if event in (STARTING, READY, GONE) or self._in_flight[who] <= 0:
            self._in_flight.pop(who)
        if event == STARTING or who in self._in_flight:
            before = self._heard.get(who, (0.0, STARTING, ""))[1]
            self._heard[who] = (time.monotonic(), says or before, node)
        else:
            self._heard.pop(who, None)

    def vitals(self) -> Vitals:
        """The sums so far."""
        worst, starts = max(self._starts.items(), key=lambda item: item[1], default=("", 0))
        now = time.monotonic()
        oldest = heapq.nsmallest(MAX_SILENT, self._heard.items(), key=lambda item: item[1][0])
        return Vitals(
            quiet_s=now - self._last_s,
            starting=self._events[STARTING],
            ready=self._events[READY],
            images=self._images,
            seconds=dict(self._seconds),
            failed=dict(self._failed),
            starts=starts,
            last_said=self._said.get(worst, STARTING),
            silent=tuple(Silent(who, node, now - heard_s, said) for who, (heard_s, said, node) in oldest),
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
    who = context.get_actor_id() or context.get_task_id()
    return partial(pulse.beat.remote, who=who, node=context.get_node_id())


def heard(beat: Any) -> None:
    """Wait until a word has arrived: a process that dies in the next instant would take it along."""
    with suppress(ray.exceptions.RayError):  # the driver's node may be away
        ray.get(beat, timeout=10)


def here() -> str:
    """This process, for whoever must end it."""
    return f"in process {os.getpid()} on {socket.gethostname()}"


def ask(pulse: Any) -> Vitals:
    """The vitals of a `Pulse` actor; nobody's when it does not answer, as after the loss of its node."""
    try:
        vitals: Vitals = ray.get(pulse.vitals.remote(), timeout=10)
    except (ray.exceptions.RayActorError, ray.exceptions.LocalRayletDiedError, ray.exceptions.GetTimeoutError):
        return Vitals()
    return vitals
