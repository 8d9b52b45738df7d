"""SIGTERM ends a job as Ctrl+C does: what `kill`, `docker stop`, a scheduler's time limit and `ray job stop` send."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType


def interrupt_on_sigterm() -> None:
    """Treat SIGTERM in this process as SIGINT from now on: `KeyboardInterrupt`, or what handles Ctrl+C at that time.

    Call it again after whatever sets a handler of its own: Ray's native one prints a stack and ends the driver on the
    spot. Outside the main thread, which alone may set handlers, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child that its parent ends
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # a shell lets the commands that it starts with & ignore Ctrl+C
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    signal.signal(signal.SIGTERM, interrupt)
