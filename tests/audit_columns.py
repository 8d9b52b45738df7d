"""Columns of an image set by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.core.audit import SetColumns
from pipeline.core.schema import STATUSES


def columns(labels: Sequence[int], hashes: Sequence[int | None], statuses: Sequence[str] | None = None) -> SetColumns:
    """Rows of these classes; their index in the class is their position here. A hash of None is none."""
    count = len(labels)
    return SetColumns(
        labels=np.array(labels),
        indices=np.arange(count),
        statuses=np.array([STATUSES.index(status) for status in statuses or ["ok"] * count], np.uint8),
        hashes=np.array([value or 0 for value in hashes], np.uint64),
        has_hash=np.array([value is not None for value in hashes]),
    )
