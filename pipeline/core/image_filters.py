"""Which images of a set a training uses: status, prefix, thresholds, duplicates; what is left out is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.clip_scores import ClipScores
from pipeline.core.errors import InputError
from pipeline.core.extra_counts import NO_EXTRAS
from pipeline.core.identity import FIRST_EXTRA, INDEX_BITS
from pipeline.core.image_set import read_columns
from pipeline.core.schema import OK
from pipeline.core.stored_rows import hash_value
from pipeline.core.train_config import FilterConfig

NOTHING: NDArray[np.int64] = np.zeros(0, np.int64)
_READERS = 16  # shards read at the same time: object stores answer in tens of milliseconds each
_ABOUT = ["image_id", "class_index", "status"]


@dataclass(frozen=True)
class Selection:
    """The images of a prefix that a training uses.

    Args:
        labels: int64, of those that stay, in row order.
        left_out: int64, sorted ids of usable images that the filters leave out.
        counts: how many, by filter and class index; an image counts at the first filter that it fails.
    """

    labels: NDArray[np.int64]
    left_out: NDArray[np.int64]
    counts: dict[str, dict[int, int]]


def select_images(
    store: Store,
    shards: list[str],
    images_per_class: int,
    filters: FilterConfig,
    extra: NDArray[np.int64] = NO_EXTRAS,
) -> Selection:
    """Look through a prefix, and the extra images beside it, without reading any image.

    Rows are looked at in their order, so of equal images the one with the lowest index stays, and a longer prefix
    leaves out the same ones of the shorter. An image that is left out is not replaced.

    Args:
        store: the storage root.
        shards: paths under it that hold the prefix, in order, then those of the extra images.
        images_per_class: rows with a larger index are not of the prefix.
        filters: of the training.
        extra: as for `is_usable`.

    Raises:
        InputError: `max_nsfw_score` or `min_clip_score` is given and images have no score.
        WorkError: a shard cannot be read.
    """
    columns = [*_ABOUT, *filter_columns(filters)]
    labels, left_out, identifiers, hashes = [], [], [], []
    counts: dict[str, dict[int, int]] = {}
    checks = dict(_checks(filters, store))
    with ThreadPoolExecutor(_READERS) as pool:
        tables = pool.map(partial(read_columns, store, columns=columns), shards)
        for shard, table in zip(shards, tables, strict=True):
            usable = table.filter(pa.array(is_usable(table, images_per_class, extra=extra)))
            classes = usable["class_index"].to_numpy().astype(np.int64)
            kept = np.ones(len(usable), bool)
            for name, check in checks.items():
                passed = check(usable)
                _count(counts, name, classes[kept & ~passed])
                kept &= passed
            labels.append(classes[kept])
            left_out.append(usable["image_id"].to_numpy()[~kept])
            if filters.drop_duplicates:
                identifiers.append(usable["image_id"].to_numpy()[kept])
                hashes.append(_hashes(store.uri(shard), usable.filter(pa.array(kept))))
    found = np.concatenate(labels)
    if filters.drop_duplicates:
        repeated = _repeated(found, np.concatenate(hashes))
        _count(counts, "drop_duplicates", found[repeated])
        left_out.append(np.concatenate(identifiers)[repeated])
        found = found[~repeated]
    return Selection(found, np.sort(np.concatenate(left_out)), counts)


def _count(counts: dict[str, dict[int, int]], name: str, labels: NDArray[np.int64]) -> None:
    for label in labels.tolist():
        by_class = counts.setdefault(name, {})
        by_class[label] = by_class.get(label, 0) + 1


def filter_columns(filters: FilterConfig) -> list[str]:
    """The columns that the filters look at."""
    asked = {
        "pixel_std": filters.min_pixel_std is not None,
        "nsfw_score": filters.max_nsfw_score is not None,
        "phash": filters.drop_duplicates,
    }
    return [name for name, wanted in asked.items() if wanted]


Check = Callable[[pa.Table], NDArray[np.bool_]]
"""Which rows pass."""


def _checks(filters: FilterConfig, store: Store) -> Iterator[tuple[str, Check]]:
    """The filters that are on and look at one row at a time, by name."""
    if filters.min_pixel_std is not None:
        lowest = filters.min_pixel_std
        yield "min_pixel_std", lambda rows: rows["pixel_std"].to_numpy() >= lowest
    if filters.max_nsfw_score is not None:
        highest = filters.max_nsfw_score
        yield "max_nsfw_score", lambda rows: _nsfw_scores(rows) <= highest
    if filters.min_clip_score is not None and filters.clip_audit is not None:
        worst, scores = filters.min_clip_score, ClipScores(store, filters.clip_audit)
        yield "min_clip_score", lambda rows: scores.of(rows["image_id"].to_numpy()) >= worst


def _nsfw_scores(rows: pa.Table) -> NDArray[np.float32]:
    if rows["nsfw_score"].null_count:
        raise InputError(
            "train.filters.max_nsfw_score is given, but images of the set have no nsfw_score: no safety checker "
            "looked at them; leave the filter out, or make the set with recipe.safety_model"
        )
    scores: NDArray[np.float32] = rows["nsfw_score"].to_numpy()
    return scores


def _hashes(where: str, rows: pa.Table) -> NDArray[np.uint64]:
    about = zip(rows["image_id"].to_pylist(), rows["phash"].to_pylist(), strict=True)
    return np.array([hash_value(where, identifier, word) for identifier, word in about], np.uint64)


def _repeated(labels: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Rows with the class and hash of an earlier one; 24 bytes a row more than the two columns."""
    order = np.lexsort((hashes, labels))  # stable, so the first of equal rows stays the first
    repeated = np.zeros(len(labels), bool)
    same = (np.diff(labels[order]) == 0) & (hashes[order][1:] == hashes[order][:-1])
    repeated[order[1:][same]] = True
    return repeated


def is_usable(
    table: pa.Table,
    images_per_class: int,
    left_out: NDArray[np.int64] = NOTHING,
    extra: NDArray[np.int64] = NO_EXTRAS,
) -> NDArray[np.bool_]:
    """Rows with status ok, of the prefix or of the extra images, and not left out: bool [rows].

    Args:
        table: with `image_id` and `status`; the last shard of the prefix, or of a class's extra images, may hold more.
        images_per_class: of the prefix.
        left_out: sorted ids of images that are not wanted.
        extra: how many extra images of each class are wanted, int64 [classes]; empty for none at all.
    """
    ids = table["image_id"].to_numpy()
    index = ids & ((1 << INDEX_BITS) - 1)
    inside = index < images_per_class
    if len(extra):
        inside |= (index >= FIRST_EXTRA) & (index - FIRST_EXTRA < extra[ids >> INDEX_BITS])
    usable: NDArray[np.bool_] = inside & (table["status"].to_numpy(zero_copy_only=False) == OK)
    if not len(left_out):
        return usable
    # np.isin would sort millions of ids again for each shard.
    nearest: NDArray[np.int64] = left_out.take(np.searchsorted(left_out, ids), mode="clip")
    usable &= nearest != ids
    return usable
