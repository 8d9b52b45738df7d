"""What can be said of an image set without one label: per class, from the columns beside its images and from CLIP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.clip_layout import DOMAINS, NATURAL
from pipeline.core.schema import BLANK, FAILED, NSFW, OK, STATUSES
from pipeline.core.transfer_config import AuditConfig

HASH_BITS = 64
BLOCK_ROWS = 1024
"""Hashes compared with all others of their class at a time."""

WORSE_WHEN_HIGH: dict[str, bool] = {
    "near_duplicates": True,
    "hash_distance": False,
    "blank": True,
    "nsfw": True,
    "failed": True,
    "agreement": False,
    "score": False,
    "clip_distance": False,
    "non_natural": True,
}
"""Measures of a class by which classes are ranked, and which end of each is the bad one."""


@dataclass(frozen=True)
class SetColumns:
    """The small columns of an image set's prefix, one entry per row.

    Args:
        labels: int64.
        indices: of the image in its class, int64.
        statuses: places in `STATUSES`, uint8.
        hashes: perceptual hashes uint64; 0 where there is none.
        has_hash: bool; a failed row has none.
    """

    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    statuses: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    has_hash: NDArray[np.bool_]

    def has_status(self, name: str) -> NDArray[np.bool_]:
        """Rows with that status, bool [n]."""
        found: NDArray[np.bool_] = self.statuses == STATUSES.index(name)
        return found


@dataclass(frozen=True)
class ClipRows:
    """CLIP's word on some images, one entry per image, 40 bytes each; of their embeddings one sum per class.

    Args:
        labels: class each was made for, int64.
        indices: of the image in its class, int64.
        best: nearest class, the own one among equals, int64.
        own_score: cosine to the own class, float32.
        best_score: cosine to the nearest class, float32.
        domain: index into `DOMAINS`, int64.
        vector_sums: over the embeddings of length 1 of each class's images, float64 [classes, d].
    """

    labels: NDArray[np.int64]
    indices: NDArray[np.int64]
    best: NDArray[np.int64]
    own_score: NDArray[np.float32]
    best_score: NDArray[np.float32]
    domain: NDArray[np.int64]
    vector_sums: NDArray[np.float64]


def bits_of(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Hashes uint64 [n] as their bits float32 [n, 64], 0 or 1: then distances are a matrix product."""
    octets = np.ascontiguousarray(hashes).view(np.uint8).reshape(len(hashes), 8)
    return np.unpackbits(octets, axis=1).astype(np.float32)


def hamming_blocks(hashes: NDArray[np.uint64]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """(rows, distances float32 [rows, n] in bits) of blocks of hashes to all; a hash's own distance is infinite."""
    bits = bits_of(hashes)
    ones = bits.sum(axis=1)
    for start in range(0, len(bits), BLOCK_ROWS):
        rows = slice(start, min(start + BLOCK_ROWS, len(bits)))
        distances = ones[rows, None] + ones[None] - 2 * (bits[rows] @ bits.T)  # whole numbers to 64: exact
        distances[np.arange(rows.stop - start), np.arange(start, rows.stop)] = np.inf
        yield rows, distances


def hash_numbers(hashes: NDArray[np.uint64], limit: int) -> tuple[NDArray[np.bool_], float | None]:
    """Which images have another one within `limit` bits, bool [n], and the mean distance of two; None below two."""
    count = len(hashes)
    near = np.zeros(count, bool)
    if count < 2:
        return near, None
    total = 0.0
    for rows, distances in hamming_blocks(hashes):
        near[rows] = distances.min(axis=1) <= limit
        total += float(distances[np.isfinite(distances)].sum(dtype=np.float64))
    return near, total / (count * (count - 1))


def class_numbers(
    columns: SetColumns, clip: ClipRows | None, num_classes: int, settings: AuditConfig
) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """One JSON-able dict of measures per class (None where there is nothing to measure), and the near-duplicate rows.

    Shares are of the class's images, 0..1. `near_duplicates`, `hash_distance` (bits, 0..64) are over its first
    `pairs_per_class` images with a hash; what CLIP says over those it saw: `agreement` (share whose nearest class is
    their own), `score` (cosine), `clip_distance` (1 less the mean cosine of two images), `non_natural` (share nearest
    to another domain than a photo), `domains` (share of each).
    """
    near_rows = np.zeros(len(columns.labels), bool)
    order = np.lexsort((columns.indices, columns.labels))
    bounds = np.searchsorted(columns.labels[order], np.arange(num_classes + 1))
    flagged = {name: columns.has_status(name) for name in (BLANK, NSFW, FAILED)}
    numbers = []
    for label in range(num_classes):
        rows = order[bounds[label] : bounds[label + 1]]
        compared = rows[columns.has_hash[rows]][: settings.pairs_per_class]
        near, distance = hash_numbers(columns.hashes[compared], settings.duplicate_distance)
        near_rows[compared] = near
        numbers.append(
            {
                "images": len(rows),
                "compared": len(compared),
                "near_duplicates": float(near.mean()) if len(compared) else None,
                "hash_distance": distance,
                **{name: float(every[rows].mean()) if len(rows) else None for name, every in flagged.items()},
                **(_clip_numbers(clip, label) if clip else {}),
            }
        )
    return numbers, near_rows


def _clip_numbers(clip: ClipRows, label: int) -> dict[str, Any]:
    rows = clip.labels == label
    count = int(rows.sum())
    if not count:
        return {"clip_images": 0, **dict.fromkeys(("agreement", "score", "clip_distance", "non_natural", "domains"))}
    total = clip.vector_sums[label]  # the sum of all cosines is the square of its length
    mean_cosine = (float(total @ total) - count) / (count * (count - 1)) if count > 1 else None
    shares = np.bincount(clip.domain[rows], minlength=len(DOMAINS)) / count
    return {
        "clip_images": count,
        "agreement": float((clip.best[rows] == label).mean()),
        "score": float(clip.own_score[rows].mean()),
        "clip_distance": None if mean_cosine is None else 1 - mean_cosine,
        "non_natural": float(1 - shares[list(DOMAINS).index(NATURAL)]),
        "domains": dict(zip(DOMAINS, shares.tolist(), strict=True)),
    }


def worst_first(numbers: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    """Labels from worst to best, and each label's badness 0..1: its mean rank over the measures that differ.

    Ranks are shared by equals and scaled to 0..1 for each measure; a class without a measure takes 0.5 there. A measure
    that is the same for all classes says nothing about them and is left out.
    """
    from scipy.stats import rankdata  # two seconds of each training worker's start, which reads CLIP's scores alone

    ranks = []
    for name, high_is_bad in WORSE_WHEN_HIGH.items():
        values = np.array([np.nan if n.get(name) is None else n[name] for n in numbers], np.float64)
        known = np.isfinite(values)
        if known.sum() < 2 or np.ptp(values[known]) == 0:
            continue
        scaled = np.full(len(values), 0.5)
        scaled[known] = (rankdata(values[known] if high_is_bad else -values[known]) - 1) / (known.sum() - 1)
        ranks.append(scaled)
    badness = np.mean(ranks, axis=0) if ranks else np.zeros(len(numbers))
    order = sorted(range(len(numbers)), key=lambda label: (-badness[label], label))
    return order, [float(value) for value in badness]


def totals(columns: SetColumns, near_rows: NDArray[np.bool_], numbers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The set in one line: images, shares over images, and means over the classes that have the measure."""
    statuses = {name: int(columns.has_status(name).sum()) for name in (OK, BLANK, NSFW, FAILED)}
    compared = sum(n["compared"] for n in numbers)
    means = {}
    for name in ("hash_distance", "agreement", "score", "clip_distance", "non_natural"):
        known = [n[name] for n in numbers if n.get(name) is not None]
        means[name] = float(np.mean(known)) if known else None
    return {
        "images": len(columns.labels),
        "counts": statuses,
        "compared": compared,
        "near_duplicates": int(near_rows.sum()) / compared if compared else None,
        **means,
    }
