"""Make chosen images of a set again, in the batches they were made in, and compare them with the stored ones."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError
from pipeline.core.identity import image_row, split_image_id
from pipeline.core.image_set import published_shards, read_summary, shard_path
from pipeline.core.recipe import Recipe

if TYPE_CHECKING:  # torch and diffusers, which only a worker needs
    from pipeline.core.shard_maker import ShardMaker

MAX_PSNR_DB = 100.0
"""What two equal pictures are given, whose ratio has no end."""


@dataclass(frozen=True)
class Comparison:
    """An image and its second making.

    Args:
        image_id: of both.
        shard: that holds the stored one.
        is_equal: the stored row and the new one have the same status and the same bytes.
        psnr_db: peak signal to noise between the decoded pictures, at most 100; None when one of them has none.
        stored_status: ok, failed, nsfw or blank.
        status: of the new one.
        differs: what of the environment is not as it was, name -> (then, now).
    """

    image_id: int
    shard: int
    is_equal: bool
    psnr_db: float | None
    stored_status: str
    status: str
    differs: dict[str, tuple[str, str]]


def locate(image_ids: Sequence[int], recipe: Recipe, store: Store, shard_size: int) -> dict[int, list[int]]:
    """Shard -> rows (numbers inside the shard) of the wanted images.

    Raises:
        InputError: an id names no class of the recipe, or its shard is not published.
    """
    published = published_shards(store, recipe.images_dir)
    found: dict[int, list[int]] = {}
    for identifier in image_ids:
        if identifier < 0 or identifier >= 1 << 63 or split_image_id(identifier)[0] >= len(recipe.classes):
            raise InputError(
                f"--image-id {identifier} names no class of this recipe, which has {len(recipe.classes)}; "
                "ids stand in the set's image_id column"
            )
        shard, row = divmod(image_row(identifier, recipe.permutation), shard_size)
        if shard not in published:
            raise InputError(
                f"--image-id {identifier} would lie in shard {shard}, which is not in {store.uri(recipe.images_dir)}"
            )
        found.setdefault(shard, []).append(row)
    return found


def compare(maker: ShardMaker, store: Store, images_dir: str, shard: int, numbers: Sequence[int]) -> list[Comparison]:
    """Make the batches again that hold some rows of a shard, and compare those rows. Raises as `read_summary`."""
    then = read_summary(store, images_dir, shard).environment
    stored = pq.read_table(pa.BufferReader(store.read_bytes(shard_path(images_dir, shard)))).to_pylist()
    now = maker.environment
    names = sorted({*then, *now})
    differs = {n: (then.get(n, "not recorded"), now.get(n, "")) for n in names if then.get(n) != now.get(n)}
    again = maker.rows(shard, numbers)
    return [_comparison(stored[number], again[number], shard, differs) for number in numbers]


def _comparison(
    stored: dict[str, Any], again: dict[str, Any], shard: int, differs: dict[str, tuple[str, str]]
) -> Comparison:
    assert stored["image_id"] == again["image_id"], (stored["image_id"], again["image_id"])
    pictures = [_pixels(stored), _pixels(again)]
    return Comparison(
        image_id=stored["image_id"],
        shard=shard,
        is_equal=(stored["status"], stored["sha256"]) == (again["status"], again.get("sha256")),
        psnr_db=None if pictures[0] is None or pictures[1] is None else psnr_db(pictures[0], pictures[1]),
        stored_status=stored["status"],
        status=again["status"],
        differs=differs,
    )


def _pixels(row: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
    data = (row.get("image") or {}).get("bytes")
    if data is None:
        return None
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def psnr_db(first: np.ndarray[Any, np.dtype[np.uint8]], second: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """Peak signal to noise ratio of two pictures uint8 [H, W, 3] of one size, in decibels, at most `MAX_PSNR_DB`."""
    error = float(np.square(first.astype(np.float64) - second).mean())
    return MAX_PSNR_DB if error == 0 else min(MAX_PSNR_DB, 10 * math.log10(255**2 / error))
