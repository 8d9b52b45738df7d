"""Is the head of the Ray cluster there? Ray itself waits for it: minutes when joining, without a word to the user."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 40.0
"""Of a job whose head is silent. Ray's own is 60 s (`RAY_gcs_rpc_server_reconnect_timeout_s`); it then ends the process
in C++, where no `except` is heard, so our line must come before."""
POLL_S = 3.0
ANSWER_TIMEOUT_S = 5.0


def answers(address: str) -> bool:
    """Whether something takes connections at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S).close()
    except (OSError, UnicodeError):  # the second: a name that no host can have, `a..b`
        return False
    return True


def answers_within(address: str, seconds: float) -> bool:
    """Whether something takes connections at `host:port`, now or before so many seconds are over."""
    deadline = time.monotonic() + seconds
    while not answers(address):
        if time.monotonic() >= deadline:
            return False
        time.sleep(1)
    return True


@contextmanager
def head_watched(address: str) -> Iterator[None]:
    """While this lasts, a head that is silent for `PATIENCE_S` ends the process: one `error:` line, exit code 1.

    A thread does it, and ends the process itself: every wait for a lost head, Ray's shutdown too, is in C++ and has no
    end that Python could bring about.

    Args:
        address: `host:port` of Ray's control service.
    """
    over = threading.Event()

    def watch() -> None:
        heard_s = time.monotonic()
        while not over.wait(POLL_S):
            if answers(address):
                heard_s = time.monotonic()
            elif (silent_s := time.monotonic() - heard_s) >= PATIENCE_S:
                sys.stdout.flush()
                print(
                    f"error: the head of the Ray cluster ({address}) has not answered for {silent_s:.0f} s; what is "
                    "published is kept, run the same command again on a cluster that is up to go on",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)

    thread = threading.Thread(target=watch, name="head-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
