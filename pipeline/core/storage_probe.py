"""May this process write where the images go? Tried before anything is paid for."""

from __future__ import annotations

import time

from pipeline.core.artifact import Store

PROBE = "preflight.json"
"""Always the same name, written over: a storage that allows no deletes is not left with many of them."""


def check_storage(store: Store, directory: str) -> None:
    """Write a small file as shards are written (temporary name, rename). Raises `WorkError` when that fails."""
    store.write_json(f"{directory}/{PROBE}", {"written_at": time.time()})
