"""Make chosen images of a set again, in the batches they were made in, and compare them with the stored ones."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError
from pipeline.core.extra_set import published_extras
from pipeline.core.extra_shards import is_extra, locate_image
from pipeline.core.identity import split_image_id
from pipeline.core.image_set import damaged_shard, footer_summary, published_shards, shard_path
from pipeline.core.recipe import Recipe
from pipeline.core.schema import FAILED
from pipeline.core.verification import check_shard

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
        is_equal: the stored row and the new one have the same status and the same bytes of an image.
        has_equal_pixels: the same status, and pictures that decode to the same pixels, whatever their bytes.
        psnr_db: peak signal to noise between the decoded pictures, at most 100; None when one of them has none, or
            another size.
        stored_status: ok, failed, nsfw or blank.
        status: of the new one.
        differs: what of the environment is not as it was, name -> (then, now).
    """

    image_id: int
    shard: int
    is_equal: bool
    has_equal_pixels: bool
    psnr_db: float | None
    stored_status: str
    status: str
    differs: dict[str, tuple[str, str]]

    @property
    def is_unexplained(self) -> bool:
        """Another picture, or none in one of the two, although nothing of the environment differs."""
        is_same = self.has_equal_pixels or self.stored_status == self.status == FAILED
        return not is_same and not self.differs


def locate(
    image_ids: Sequence[int], recipe: Recipe, store: Store, shard_size: int, batch_size: int
) -> dict[int, list[int]]:
    """Shard -> rows (numbers inside the shard) of the wanted images, extra ones too.

    Raises:
        InputError: an id names no class of the recipe, or its shard is not published.
    """
    published = published_shards(store, recipe.images_dir) | published_extras(store, recipe.images_dir)
    found: dict[int, list[int]] = {}
    for identifier in image_ids:
        if identifier < 0 or identifier >= 1 << 63 or split_image_id(identifier)[0] >= len(recipe.classes):
            raise InputError(
                f"--image-id {identifier} names no class of this recipe, which has {len(recipe.classes)}; "
                "ids stand in the set's image_id column"
            )
        shard, row = locate_image(identifier, recipe.permutation, shard_size, batch_size)
        if shard not in published:
            name = f"shard {shard}" if not is_extra(shard) else shard_path("", shard).removeprefix("/")
            raise InputError(
                f"--image-id {identifier} would lie in {name}, which is not in {store.uri(recipe.images_dir)}"
            )
        found.setdefault(shard, []).append(row)
    return found


def compare(maker: ShardMaker, store: Store, recipe: Recipe, shard: int, numbers: Sequence[int]) -> list[Comparison]:
    """Make the batches again that hold some rows of a shard, and compare those rows.

    Raises:
        WorkError: the shard is damaged, or the storage does not answer.
    """
    path = shard_path(recipe.images_dir, shard)
    if faults := check_shard(store, recipe, shard, maker.rows_in(shard)):
        raise damaged_shard(store.uri(path), faults[0])
    table = store.read_table(path)
    then, now = footer_summary(table.schema.metadata).environment, maker.environment
    stored = table.to_pylist()
    names = sorted({*then, *now})
    differs = {n: (then.get(n, "not recorded"), now.get(n, "none")) for n in names if then.get(n) != now.get(n)}
    again = maker.rows(shard, numbers)
    return [_comparison(stored[number], again[number], shard, differs) for number in numbers]


def _comparison(
    stored: dict[str, Any], again: dict[str, Any], shard: int, differs: dict[str, tuple[str, str]]
) -> Comparison:
    assert stored["image_id"] == again["image_id"], (stored["image_id"], again["image_id"])
    first, second = _pixels(stored), _pixels(again)
    is_status_equal = stored["status"] == again["status"]
    psnr, has_equal_pixels = None, False
    if first is not None and second is not None and first.shape == second.shape:
        psnr = psnr_db(first, second)
        has_equal_pixels = is_status_equal and np.array_equal(first, second)
    return Comparison(
        image_id=stored["image_id"],
        shard=shard,
        is_equal=is_status_equal and stored["sha256"] is not None and stored["sha256"] == again.get("sha256"),
        has_equal_pixels=has_equal_pixels,
        psnr_db=psnr,
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
