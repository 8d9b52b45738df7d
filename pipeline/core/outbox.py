"""A queue of things to send to somewhere that may be away for a while. Nothing it does can end the caller's work."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

RETRY_INTERVAL_S = 60.0
"""Wait before a receiver that did not answer is asked again, so that the work does not stand still."""

logger = logging.getLogger(__name__)


class Outbox:
    """Sends in order; keeps what could not be sent until the receiver answers again.

    Args:
        receiver: name for the warnings, of which each kind comes once.
        is_refusal: whether an error means that the receiver answered and said no; such an entry is left out.
        retry_interval_s: seconds between attempts while the receiver is away.
    """

    def __init__(
        self, receiver: str, is_refusal: Callable[[Exception], bool], retry_interval_s: float = RETRY_INTERVAL_S
    ) -> None:
        self._receiver = receiver
        self._is_refusal = is_refusal
        self._retry_interval_s = retry_interval_s
        self._queue: deque[Callable[[], object]] = deque()
        self._retry_at = 0.0
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, send: Callable[[], object]) -> None:
        """Send now, or keep for later. Never raises. `send` may be called again after it failed."""
        self._queue.append(send)
        if time.monotonic() >= self._retry_at:
            self.flush()

    def flush(self) -> bool:
        """Try to send all that waits, now. Returns whether nothing is left; never raises."""
        while self._queue:
            try:
                self._queue[0]()
            except Exception as error:  # noqa: BLE001 - whatever a tracker or its storage does, hours of work go on
                if not self._is_refusal(error):
                    self._retry_at = time.monotonic() + self._retry_interval_s
                    self._warn("does not answer; the work goes on and its entries wait", error)
                    return False
                self._warn("refused an entry, which is left out", error)
            self._queue.popleft()
        self._retry_at = 0.0
        return True

    def _warn(self, what: str, error: Exception) -> None:
        if what not in self._warned:
            logger.warning("%s %s (%s)", self._receiver, what, one_line(error))
        self._warned.add(what)


def one_line(error: BaseException) -> str:
    """An error's text on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
