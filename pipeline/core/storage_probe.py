"""May this process write where the images go? Tried before anything is paid for."""

from __future__ import annotations

import time

from pipeline.core.artifact import Store

PROBE = "preflight.json"
"""Always the same name, written over: a storage that allows no deletes is not left with many of them."""
CHECK_PATIENCE_S = 10.0
"""How long the storage may not answer before a run: nothing is paid for yet, so nothing is worth waiting for."""


def check_storage(store: Store, directory: str) -> None:
    """Write a small file as shards are written (temporary name, rename). Raises `WorkError` when that fails."""
    store.write_json(f"{directory}/{PROBE}", {"written_at": time.time()}, CHECK_PATIENCE_S)
