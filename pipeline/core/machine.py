"""What this machine has."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """CPUs that this process may run on, which `taskset` or a container may make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
