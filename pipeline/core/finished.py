"""Results that a job need not make again."""

from __future__ import annotations

from typing import Any

from pipeline.core.artifact import MANIFEST, Store


def finished(store: Store, directory: str, *files: str) -> dict[str, Any] | None:
    """The manifest of a directory, when it is there with the files that it names.

    A page that somebody removed, as the words about a damaged one tell to, is made again.

    Args:
        store: the storage root.
        directory: in it.
        files: keys of the manifest; a value is the path of a file, or None.

    Raises:
        WorkError: the manifest is damaged, or the storage cannot be read.
    """
    path = f"{directory}/{MANIFEST}"
    if not store.exists(path):
        return None
    manifest = store.read_json(path)
    return manifest if all(manifest[name] is None or store.exists(manifest[name]) for name in files) else None
