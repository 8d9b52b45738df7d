"""A lease in the storage root: of all processes that ask, on any node, one at a time holds it.

Lamport's bakery with one file per ticket (Lamport 1974, doi:10.1145/361082.361093): it needs nothing but whole writes,
and listings that show what was written before, which disks and object stores both give; pyarrow has no conditional PUT.
A holder that lives writes its ticket anew again and again. Whoever waits removes a ticket that it has seen unchanged
for `ttl_s` on its own clock, so clocks of nodes are never compared; and at once one whose process it would see if it
were alive: a killed job that is started again on its machine goes on without a wait.

A holder that only slept that long goes on beside its successor. So a lease saves work, it does not protect data: what
is done under it must be harmless when done twice, as publishing a shard is.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError

logger = logging.getLogger(__name__)
LEAVE_PATIENCE_S = 10.0
"""For a storage that is away when a lease is given back: whoever leaves for that reason has waited already."""
_CHOOSING, _TICKET = "choosing-", "ticket-"


@dataclass(frozen=True)
class LeaseTiming:
    """Seconds of a lease.

    Args:
        heartbeat_s: between two signs of life of everyone who holds or waits.
        ttl_s: after so long without one a ticket counts as left by the dead.
        poll_s: between two looks of those who wait.
    """

    heartbeat_s: float = 5.0
    ttl_s: float = 45.0
    poll_s: float = 0.5


@contextmanager
def lease(
    store: Store,
    directory: str,
    until: Callable[[], bool] = lambda: False,
    timing: LeaseTiming | None = None,
    key: str | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[bool]:
    """Wait for the lease and hold it inside the `with` block.

    Args:
        store: the storage root.
        directory: of the lease; it holds nothing else.
        until: asked before every look; when it says yes there is nothing left to wait for.
        timing: how often and how long.
        key: hex digits that name this contender, so that another process may `withdraw` it; default: new ones.
        say: takes one line when there is somebody to wait for, which names them.

    Yields:
        Whether the lease is held; False when `until` said yes first.

    Raises:
        WorkError: the storage cannot be read or written.
    """
    contender = _Contender(store, directory, timing or LeaseTiming(), key or uuid.uuid4().hex, say)
    try:
        yield contender.wait(until)
    finally:
        contender.leave()


def withdraw(store: Store, directory: str, key: str) -> None:
    """Remove what the contender of that key left, when its process is known to be dead: others need not wait for it."""
    for name in store.list_names(directory):
        if name.endswith(key):
            store.delete(f"{directory}/{name}")


@dataclass(frozen=True)
class _Seen:
    """Another one's file: its content when it was last read, when that was, and for how long it has been that."""

    content: bytes
    looked_s: float
    silent_s: float


@dataclass
class _Contender:
    store: Store
    directory: str
    timing: LeaseTiming
    key: str
    say: Callable[[str], object]
    ticket: str | None = None
    """File name of the ticket; None outside the queue."""
    seen: dict[str, _Seen] = field(default_factory=dict)
    left: threading.Event = field(default_factory=threading.Event)
    heart: threading.Thread | None = None
    has_said: bool = False

    def wait(self, until: Callable[[], bool]) -> bool:
        """Whether the lease is ours; False when `until` said yes first."""
        while not until():
            if self.ticket is None or self.ticket not in self.store.list_names(self.directory):
                self._take_ticket()  # the first one, or ours was taken for a dead one's
            assert self.ticket is not None
            # Two listings, choosers first: one alone may miss a ticket that appears while its chooser's mark goes.
            ahead = self._others(_CHOOSING)
            ahead = ahead or [name for name in self._others(_TICKET) if name < self.ticket]
            if not ahead:
                return True
            living = [name for name in ahead if not self._remove_if_dead(name)]
            if living:
                self._say_once(living[0])
                time.sleep(self.timing.poll_s)
        return False

    def leave(self) -> None:
        """Give the lease or the place in the queue back."""
        self.left.set()
        if self.heart is not None:
            self.heart.join(LEAVE_PATIENCE_S)
        if self.ticket is None:
            return
        try:
            self.store.delete(self._path(self.ticket), LEAVE_PATIENCE_S)
        except WorkError as error:  # not instead of the reason why the block was left; a silent ticket is removed
            logger.warning("the lease of %s is left by its silence: %s", self.store.uri(self.directory), error)

    def _take_ticket(self) -> None:
        mark = f"{_CHOOSING}{self.key}"
        self._write(mark, 0)
        numbers = [int(name.split("-")[1]) for name in self.store.list_names(self.directory) if _is_ticket(name)]
        self.ticket = f"{_TICKET}{max(numbers, default=0) + 1:012d}-{self.key}"
        self._write(self.ticket, 0)
        self.store.delete(self._path(mark))
        if self.heart is None:
            self.heart = threading.Thread(target=self._beat, daemon=True)
            self.heart.start()

    def _beat(self) -> None:
        """Runs in a thread: a sign of life until the lease is left. A ticket that was taken from us is not put back."""
        beats = 0
        while not self.left.wait(self.timing.heartbeat_s):
            beats += 1
            try:
                if self.ticket is not None and self.store.exists(self._path(self.ticket)):
                    self._write(self.ticket, beats)
            except WorkError as error:  # the work itself will meet it too, and say so
                logger.warning("no sign of life for the lease of %s: %s", self.store.uri(self.directory), error)

    def _others(self, prefix: str) -> list[str]:
        return [n for n in self.store.list_names(self.directory) if n.startswith(prefix) and not n.endswith(self.key)]

    def _remove_if_dead(self, name: str) -> bool:
        """Whether the file is gone."""
        try:
            content = self.store.read_bytes(self._path(name))
        except FileNotFoundError:
            return True
        now, silent_s, before = time.monotonic(), 0.0, self.seen.get(name)
        if before is not None and before.content == content:
            # Between two looks lies an outage of the storage, maybe, in which nobody could give a sign of life.
            silent_s = before.silent_s + min(now - before.looked_s, self.timing.ttl_s / 2)
        self.seen[name] = _Seen(content, now, silent_s)
        has_ended = _has_ended(json.loads(content))
        if not has_ended and silent_s <= self.timing.ttl_s:
            return False
        why = "whose process has ended" if has_ended else f"silent for {silent_s:.0f} s"
        logger.warning("the lease of %s is taken from %s, %s", self.directory, name, why)
        self.store.delete(self._path(name))
        return True

    def _say_once(self, name: str) -> None:
        if self.has_said:
            return
        self.has_said = True
        owner = json.loads(self.seen[name].content)
        self.say(
            f"process {owner.get('pid')} on {owner.get('host')} holds {self.store.uri(self.directory)}: waiting until "
            f"it ends, or is silent for {self.timing.ttl_s:.0f} s"
        )

    def _write(self, name: str, beats: int) -> None:
        self.store.write_json(self._path(name), {**_place(), "pid": os.getpid(), "beats": beats})

    def _path(self, name: str) -> str:
        return f"{self.directory}/{name}"


def _is_ticket(name: str) -> bool:
    return name.startswith(_TICKET) and name.split("-")[1].isdecimal()


@cache
def _place() -> dict[str, str | None]:
    """Where a process's number means something: the host, and which processes one there sees; None without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        sees = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        sees = None
    return {"host": socket.gethostname(), "sees": sees}


def _has_ended(owner: dict[str, Any]) -> bool:
    """Whether the process that wrote this is known to be gone; False for one that cannot be seen from here."""
    here = _place()
    if here["sees"] is None or any(owner.get(name) != value for name, value in here.items()):
        return False
    try:
        with suppress(PermissionError):  # it lives, under another user
            os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    return False
