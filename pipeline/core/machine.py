"""This machine, and the processes on it."""

from __future__ import annotations

import multiprocessing
import os
import threading


def usable_cpus() -> int:
    """CPUs that this process may run on, which `taskset` or a container may make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """From now on this process, one of `multiprocessing`, ends when the one that started it does.

    A parent that a signal ends takes none of its processes along: they work on to their end, for nobody.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "nobody started it"

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, name="end-with-parent", daemon=True).start()
