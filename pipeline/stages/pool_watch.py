"""What a pool gets done, watched from the driver: its rows, or one line why none comes."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ray
import ray.exceptions
from ray.data.block import BlockAccessor

from pipeline.core.stall import CrashClock, StallClock
from pipeline.stages.offers import OF_AN_ACTOR, check_offered
from pipeline.stages.pulse import Silent, Vitals, ask

if TYPE_CHECKING:
    from ray.data import Dataset

T = TypeVar("T")
POLL_S = 2.0
WARN_AFTER_S = 30.0
"""A stalled job says so within a minute, on a machine too that is busy enough to make polls and answers slow."""
END_TIMEOUT_S = 10.0
"""For Ray Data to give its actors back."""
LEAVE_AGAIN_S = 0.2
"""An execution that is left while it is planned can only be ended once it runs."""


class _End:
    """After the last item, or instead of it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Watch:
    """Judges what a pool tells; arguments as `watched`."""

    def __init__(self, pulse: Any, needs: Mapping[str, float], stall_timeout_s: float, job: str, settings: str) -> None:
        self._pulse, self._needs, self._job, self._settings = pulse, needs, job, settings
        self._stall = StallClock(min(WARN_AFTER_S, stall_timeout_s), stall_timeout_s)
        self._silence_s = stall_timeout_s / 3
        self._silent: dict[str, StallClock] = {}
        """By actor that has said nothing for so long."""
        self._crashes = CrashClock()

    def look(self, last_row_s: float) -> None:
        """Print what is due; `last_row_s` is when a row came, on the monotonic clock. Raises as `watched`."""
        vitals = ask(self._pulse)
        if not vitals.starting:
            check_offered(self._needs, self._settings, time.monotonic() - last_row_s)
        quiet_s = min(vitals.quiet_s, time.monotonic() - last_row_s)
        crash = self._crashes.look(vitals.starts, vitals.last_said)
        ones = self._look_at_each(vitals.silent) if quiet_s < WARN_AFTER_S else []
        for line in (crash, *ones, self._stall.look(quiet_s, situation(vitals, self._needs))):
            if line:
                print(f"{self._job}: {line}", flush=True)

    def _look_at_each(self, silent: Iterable[Silent]) -> list[str | None]:
        """Lines that are due about single actors. Whose node is lost hangs no more: Ray starts it elsewhere."""
        due = [one for one in silent if one.seconds >= self._silence_s]
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]} if due else set()
        self._silent = {
            one.who: self._silent.get(one.who) or StallClock(self._silence_s, math.inf)
            for one in due
            if one.node in alive
        }
        return [self._silent[one.who].look_at_one(one.seconds, one.said) for one in due if one.who in self._silent]


def watched_rows(
    dataset: Dataset,
    pulse: Any,
    needs: Mapping[str, float],
    stall_timeout_s: float,
    job: str = "generate",
) -> AbstractContextManager[Generator[dict[str, Any], None, None]]:
    """A dataset's rows, `watched`. Leaving ends its execution and its actors, also while the first row is awaited.

    One that is left running starts dying actors again without an end, outlives Ray's shutdown, prints a traceback, and
    joins the cluster again. Ray Data 2.60 has no public way to end one whose next row is awaited: `iter_rows` shows its
    executor to nobody before the first row is there, so this is what it does, with an executor of ours.
    """
    executor = dataset._create_executor()

    def rows() -> Iterator[dict[str, Any]]:
        for bundle in dataset._build_bundle_iterator(executor):
            references: list[Any] = list(bundle.block_refs)
            for block in ray.get(references):
                yield from BlockAccessor.for_block(block).iter_rows(public_row_format=True)

    leave = partial(executor.shutdown, force=True)
    return closing(watched(rows(), leave, pulse, needs, stall_timeout_s, job))


def watched(
    rows: Iterable[T],
    leave: Callable[[], object],
    pulse: Any,
    needs: Mapping[str, float],
    stall_timeout_s: float,
    job: str = "generate",
    settings: str = OF_AN_ACTOR,
) -> Generator[T, None, None]:
    """Pass on what an iterator gives that waits for Ray; say, and in the end raise, when the pool gets nothing done.

    That is when it shows no sign of life, or when one of its actors dies and is started again without an end.

    The iterator itself waits without an end, e.g. for a GPU that no node has, so it runs on a thread of its own.
    Whoever may leave before the last row closes this one (`contextlib.closing`): the exception that makes him leave
    would keep it, and with it Ray Data's execution, beyond the end of Ray's session.

    Args:
        rows: the iterator.
        leave: makes the iterator end while it waits, from another thread; called again and again until it has.
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
        _end(thread, leave)


def _end(thread: threading.Thread, leave: Callable[[], object]) -> None:
    """End the iterator that a thread waits in. What no longer answers, e.g. a lost cluster, ends with the process."""

    def until_it_has_left() -> None:
        with suppress(ray.exceptions.RayError):
            while thread.is_alive() and time.monotonic() < deadline_s:
                leave()
                thread.join(LEAVE_AGAIN_S)

    deadline_s = time.monotonic() + END_TIMEOUT_S
    if thread.is_alive():
        helper = threading.Thread(target=until_it_has_left, daemon=True)
        helper.start()
        helper.join(END_TIMEOUT_S)


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
