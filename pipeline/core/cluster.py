"""Whether this process's job belongs to a cluster."""

from __future__ import annotations

import os


def cluster_address() -> str | None:
    """The cluster that this process's job belongs to; None when Ray starts here, with the job, and ends with it."""
    return os.environ.get("RAY_ADDRESS")
