"""A queue of things to send to somewhere that may be away for a while. Nothing it does can end the caller's work."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

RETRY_INTERVAL_S = 60.0
"""Wait before a receiver that did not answer is asked again, so that the work does not stand still."""

logger = logging.getLogger(__name__)


class _Outcome(Enum):
    DONE = "sent, or refused and left out"
    ASIDE = "the receiver is there and the entry failed"
    AWAY = "the receiver does not answer"


class Outbox:
    """Sends in order; keeps what could not be sent until the receiver answers again.

    An entry with a name may be sent out of order: one that fails while the receiver is there (a file, whose storage is
    elsewhere) is set aside and tried again later, and what is behind it goes on.

    Args:
        receiver: name for the warnings, of which each kind comes once.
        is_refusal: whether an error means that the receiver answered and said no; such an entry is left out.
        retry_interval_s: seconds between attempts while the receiver, or the place of what is set aside, is away.
        is_there: whether the receiver answers, asked when an entry with a name has failed; may not raise.
        hint: what to do about an entry set aside, for its warning.
    """

    def __init__(
        self,
        receiver: str,
        is_refusal: Callable[[Exception], bool],
        retry_interval_s: float = RETRY_INTERVAL_S,
        *,
        is_there: Callable[[], bool] = lambda: False,
        hint: str = "",
    ) -> None:
        self._receiver = receiver
        self._is_refusal = is_refusal
        self._retry_interval_s = retry_interval_s
        self._is_there = is_there
        self._hint = hint
        self._queue: deque[tuple[str | None, Callable[[], object]]] = deque()
        self._aside: dict[str, Callable[[], object]] = {}
        self._retry_at = 0.0
        self._aside_retry_at = 0.0
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self._queue) + len(self._aside)

    @property
    def num_aside(self) -> int:
        """How many of the entries that wait are set aside."""
        return len(self._aside)

    def put(self, send: Callable[[], object], name: str | None = None) -> None:
        """Send now, or keep for later. Never raises.

        Args:
            send: may be called again after it failed.
            name: of an entry that may be sent out of order; a later one of the same name replaces it.
        """
        self._queue.append((name, send))
        now = time.monotonic()
        if now >= self._retry_at and self._send_queue() and now >= self._aside_retry_at:
            self._send_aside()

    def flush(self) -> bool:
        """Try to send all that waits, now. Returns whether nothing is left; never raises."""
        return self._send_queue() and self._send_aside()

    def _send_queue(self) -> bool:
        """Send what waits in order. Returns False when the receiver does not answer."""
        while self._queue:
            name, send = self._queue[0]
            # Its place has just failed for another: hours of timeouts, one a file, would stop the work.
            is_parked = name is not None and bool(self._aside) and time.monotonic() < self._aside_retry_at
            outcome = _Outcome.ASIDE if is_parked else self._attempt(name, send)
            if outcome is _Outcome.AWAY:
                return False
            self._queue.popleft()
            self._settle(name, send, outcome)
        self._retry_at = 0.0
        return True

    def _send_aside(self) -> bool:
        """Try what was set aside, for one interval at most. Returns whether nothing is left of it."""
        deadline = time.monotonic() + self._retry_interval_s
        for name, send in list(self._aside.items()):
            outcome = self._attempt(name, send)
            if outcome is _Outcome.AWAY:
                break
            self._settle(name, send, outcome)
            if time.monotonic() > deadline:
                break
        return not self._aside

    def _settle(self, name: str | None, send: Callable[[], object], outcome: _Outcome) -> None:
        if name is not None:
            self._aside.pop(name, None)  # also an older entry of this name; one that failed again goes to the end
            if outcome is _Outcome.ASIDE:
                self._aside[name] = send

    def _attempt(self, name: str | None, send: Callable[[], object]) -> _Outcome:
        try:
            send()
        except Exception as error:  # noqa: BLE001 - whatever a tracker or its storage does, hours of work go on
            if self._is_refusal(error):
                self._warn("refused an entry, which is left out ({error})", error)
            elif name is not None and self._is_there():
                self._aside_retry_at = time.monotonic() + self._retry_interval_s
                what = "could not store {name}, which is tried again later; the rest goes on ({error}). {hint}"
                self._warn(what, error, name)
                return _Outcome.ASIDE
            else:
                self._retry_at = time.monotonic() + self._retry_interval_s
                self._warn("does not answer; the work goes on and its entries wait ({error})", error)
                return _Outcome.AWAY
        return _Outcome.DONE

    def _warn(self, what: str, error: Exception, name: str = "") -> None:
        if what not in self._warned:
            told = what.format(error=one_line(error), name=name, hint=self._hint)
            logger.warning("%s %s", self._receiver, told)
        self._warned.add(what)


def one_line(error: BaseException) -> str:
    """An error's text on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
