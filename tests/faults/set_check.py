"""Is an image set what nobody's disturbing it would have left? Read with pyarrow alone: nothing of the stage's own."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any

import pyarrow.parquet as pq
from pyarrow import fs


def only_set(files: fs.FileSystem, root: str) -> str:
    """Path of the one image set under a storage root."""
    found = [info.path for info in files.get_file_info(fs.FileSelector(f"{root}/images"))]
    assert len(found) == 1, found
    return str(found[0])


def published_names(files: fs.FileSystem, root: str) -> list[str]:
    """Names of the files in the shards' folder that are no hidden leftovers of a killed writer."""
    folder = f"{root}/images"
    if files.get_file_info(folder).type == fs.FileType.NotFound:
        return []
    infos = files.get_file_info(fs.FileSelector(f"{only_set(files, root)}/shards", allow_not_found=True))
    return sorted(info.base_name for info in infos if not info.base_name.startswith("."))


def rows_of(files: fs.FileSystem, root: str) -> list[dict[str, Any]]:
    """Every row of every published file, in the order of names: image_id, status, sha256, and the hash of its bytes."""
    rows: list[dict[str, Any]] = []
    folder = f"{only_set(files, root)}/shards"
    for name in published_names(files, root):
        table = pq.read_table(
            f"{folder}/{name}", filesystem=files, columns=["image_id", "status", "sha256", "image"], partitioning=None
        )
        for row in table.to_pylist():
            row["bytes_sha256"] = hashlib.sha256(row.pop("image")["bytes"]).hexdigest()
            rows.append(row)
    return rows


def check_set(files: fs.FileSystem, root: str, undisturbed: list[dict[str, Any]], shards: int) -> None:
    """No row missing, none twice, every sha256 equal to the undisturbed one's, no file that is not a shard.

    Args:
        files: where the set lies.
        root: path of the storage root in it.
        undisturbed: rows of a set of at least as many shards, made without disturbance.
        shards: how many the set must have.
    """
    names = published_names(files, root)
    assert names == [f"shard-{shard:06d}.parquet" for shard in range(shards)], names
    found = rows_of(files, root)
    size = len(found) // shards
    expected = undisturbed[: shards * size]
    ids = Counter(row["image_id"] for row in found)
    twice = sorted(identifier for identifier, count in ids.items() if count > 1)
    missing = sorted({row["image_id"] for row in expected} - set(ids))
    assert not twice and not missing and len(found) == len(expected), (twice, missing, len(found), len(expected))
    assert all(row["bytes_sha256"] == row["sha256"] for row in found)
    different = [a["image_id"] for a, b in zip(found, expected, strict=True) if a != b]
    assert not different, different


def check_part(files: fs.FileSystem, root: str, shard_size: int, again: list[dict[str, Any]]) -> int:
    """As `check_set`, for a set that was stopped in the middle: any of its shards may be missing.

    Args:
        files: where the set lies.
        root: path of the storage root in it.
        shard_size: rows of each shard.
        again: rows of some of its shards, made without disturbance.

    Returns:
        How many rows there are.
    """
    names = published_names(files, root)
    assert all(re.fullmatch(r"shard-\d{6}\.parquet", name) for name in names), names
    found = {row["image_id"]: row for row in rows_of(files, root)}
    assert len(found) == len(names) * shard_size, (len(found), len(names), shard_size)
    assert all(row["bytes_sha256"] == row["sha256"] for row in found.values())
    different = [row["image_id"] for row in again if found[row["image_id"]] != row]
    assert again and not different, different
    return len(found)
