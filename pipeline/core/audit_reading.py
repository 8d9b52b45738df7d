"""What an audit reads of an image set: the small columns of all rows, and whole rows of a few images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.audit import SetColumns
from pipeline.core.config import RunConfig
from pipeline.core.identity import INDEX_BITS, image_row
from pipeline.core.image_set import damaged_shard, read_columns, shard_path
from pipeline.core.images import perceptual_hash
from pipeline.core.recipe import Recipe
from pipeline.core.schema import BLANK, IMAGE_SCHEMA, OK, STATUSES
from pipeline.core.stored_rows import hash_value, telling_image
from pipeline.core.training_images import read_square, real_folder, real_images, real_side
from pipeline.core.transfer_config import AuditConfig

COLUMNS = ["image_id", "class_index", "status", "phash"]
"""34 bytes a row in the file; the image bytes stay where they are."""
_READERS = 16  # shards read at the same time: object stores answer in tens of milliseconds each


def read_set_columns(store: Store, shards: Sequence[str], images_per_class: int) -> SetColumns:
    """The small columns of a prefix, 26 bytes a row in memory and twice that while the shards' are put together.

    Raises `WorkError` when a shard is damaged.

    Args:
        store: the storage root.
        shards: paths under it that hold the prefix.
        images_per_class: rows beyond it (the surplus of the last shard) are left out.
    """

    def read(path: str) -> SetColumns:
        table, where = read_columns(store, path, COLUMNS), store.uri(path)
        table = table.filter(pa.array(table["image_id"].to_numpy() & ((1 << INDEX_BITS) - 1) < images_per_class))
        identifiers, words = table["image_id"].to_numpy(), table["phash"].to_pylist()
        statuses = pc.index_in(table["status"], value_set=pa.array(STATUSES))
        if statuses.null_count:
            row = statuses.to_pylist().index(None)
            said = f"status {table['status'][row].as_py()!r} of image {identifiers[row]}"
            raise damaged_shard(where, f"{said} is none of {', '.join(STATUSES)}")
        hashes = [0 if w is None else hash_value(where, i, w) for i, w in zip(identifiers, words, strict=True)]
        return SetColumns(
            labels=table["class_index"].to_numpy().astype(np.int64),
            indices=identifiers & ((1 << INDEX_BITS) - 1),
            statuses=statuses.to_numpy().astype(np.uint8),
            hashes=np.array(hashes, np.uint64),
            has_hash=np.array([word is not None for word in words], bool),
        )

    with ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(read, shards))
    joined: dict[str, NDArray[Any]] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in SetColumns.__dataclass_fields__
    }
    return SetColumns(**joined)


def real_columns(config: RunConfig) -> SetColumns:
    """The same columns of real training images, hashed here: what the set's numbers stand beside.

    Of each class as many as the set has, at most the `audit.pairs_per_class` that are compared. Files are decoded one
    by one.

    Raises `InputError` when there are no real training images of these classes.
    """
    config = with_compared_images(config)
    if (folder := real_folder(config)) is not None:
        side, labels = real_side(config), folder.labels
        with ThreadPoolExecutor(_READERS) as pool:
            words = list(pool.map(lambda path: perceptual_hash(read_square(path, side)), folder.files))
    else:
        images, labels = real_images(config)
        words = [perceptual_hash(image) for image in images]
    positions = np.arange(len(labels))
    return SetColumns(
        labels=labels,
        indices=positions,  # any order within a class will do
        statuses=np.full(len(labels), STATUSES.index(OK), np.uint8),
        hashes=np.array([int(word, 16) for word in words], np.uint64),
        has_hash=np.ones(len(labels), bool),
    )


def with_compared_images(config: RunConfig) -> RunConfig:
    """A config of no more images per class than an audit compares."""
    return config.model_copy(update={"images_per_class": min(config.images_per_class, config.audit.pairs_per_class)})


def first_pictures(store: Store, shard: str, images_per_class: int) -> Iterator[tuple[int, int, Image.Image]]:
    """(class, index in it, RGB image) of a shard's good rows among the first images of each class.

    Raises `WorkError` when the shard or an image of it is damaged.
    """
    table = read_columns(store, shard, ["image_id", "class_index", "status", "image"])
    indices = table["image_id"].to_numpy() & ((1 << INDEX_BITS) - 1)
    good = (table["status"].to_numpy(zero_copy_only=False) == OK) & (indices < images_per_class)
    for row in table.filter(pa.array(good)).to_pylist():
        with telling_image(store.uri(shard), row["image_id"]), Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            picture = image.convert("RGB")
        yield row["class_index"], row["image_id"] & ((1 << INDEX_BITS) - 1), picture


def rows_of(
    store: Store, recipe: Recipe, identifiers: Sequence[int], shard_size: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(path of the shard, whole row with the columns of `schema.IMAGE_SCHEMA`) of some images, shard by shard.

    Each shard that holds one is read once. Raises `WorkError` when one is damaged.
    """
    for shard in sorted({image_row(identifier, recipe.permutation) // shard_size for identifier in identifiers}):
        path = shard_path(recipe.images_dir, shard)
        table = read_columns(store, path, IMAGE_SCHEMA.names)
        chosen = np.isin(table["image_id"].to_numpy(), identifiers)
        yield from ((path, row) for row in table.filter(pa.array(chosen)).to_pylist())


def unseen_pictures(columns: SetColumns, settings: AuditConfig) -> list[int]:
    """Ids of images that the page may show and CLIP does not decode: blank ones, and those beyond the ones it sees."""
    shown = (columns.indices < settings.pictures_per_class) & (columns.has_status(OK) | columns.has_status(BLANK))
    seen = columns.has_status(OK) & (columns.indices < settings.clip_images_per_class)
    rows = shown & ~seen
    found: list[int] = (columns.labels[rows] << INDEX_BITS | columns.indices[rows]).tolist()
    return found
