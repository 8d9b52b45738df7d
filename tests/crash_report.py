"""What is known of a test process that died: pytest alone says that it is gone, and its own last words are lost."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

RAY_SESSIONS = Path("/tmp/ray")
RECENT_S = 900
TAIL_LINES = 12
WRITERS = re.compile(r"(gcs_server|raylet|python-core-driver).*\.(out|err|log)$")


def crash_report(returncode: int | None, sessions: Path = RAY_SESSIONS) -> str:
    """How the process ended, the memory left on the machine, and the last lines of the Rays that ran lately.

    A killed process (-9) was killed by a test or by the kernel for memory; 1 is what a lost head ends with; -6 and -11
    come from C++.
    """
    free_gib = psutil.virtual_memory().available / 2**30
    lines = [f"it ended with {_named(returncode)}; {free_gib:.1f} GiB of memory are free now"]
    for log in _recent_logs(sessions):
        tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        lines += [f"--- {log.parent.parent.name}/{log.name}", *tail]
    return "\n".join(lines)


def _named(returncode: int | None) -> str:
    if returncode is None:
        return "no exit code yet"
    return f"exit code {returncode}" if returncode >= 0 else f"{signal.Signals(-returncode).name} ({returncode})"


def _recent_logs(sessions: Path) -> Iterator[Path]:
    for log in sorted(sessions.glob("session_2*/logs/*")):
        if WRITERS.match(log.name) and log.stat().st_size > 0 and log.stat().st_mtime > time.time() - RECENT_S:
            yield log
