"""Rows of an image set, and real images, as the uint8 arrays that training reads."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.datasets import as_rgb32, class_prefix, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.extra_counts import NO_EXTRAS
from pipeline.core.image_filters import NOTHING, is_usable
from pipeline.core.image_set import read_columns
from pipeline.core.model_identity import REAL_DATA
from pipeline.core.real_folder import RealFolder, open_real_folder
from pipeline.core.stored_rows import telling_image
from pipeline.core.train_config import TrainConfig

COLUMNS = ["image_id", "class_index", "image", "status"]
"""All that training reads of a shard."""

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images [N, H, W, 3] and labels [N]."""
Part = tuple[int, int, int]
"""Images to be decoded: how many, their width and their height."""
_READERS = 16  # shards read at the same time: object stores answer in tens of milliseconds each


def stored_side(settings: TrainConfig) -> int:
    """Pixels of the shorter side up to which decoded images are kept whole: `stored_size`, or 8/7 of the input.

    Larger ones are resized to it at once (antialiased), so that memory is bounded: to ImageNet's 256 for 224.
    """
    return settings.stored_size or settings.input_size * 8 // 7


def synthetic_images(
    store: Store,
    shards: list[str],
    config: RunConfig,
    left_out: NDArray[np.int64] = NOTHING,
    extra: NDArray[np.int64] = NO_EXTRAS,
) -> Arrays:
    """The usable images of an image set's prefix and of the extra ones beside it, in the order of the shards.

    Args:
        store: the storage root.
        shards: paths under it that hold the prefix and the extra images.
        config: images_per_class and the training's input size.
        left_out: sorted ids of images that are not wanted.
        extra: how many extra images of each class, int64 [classes]; empty for none at all.

    Raises:
        WorkError: a shard cannot be read, or a usable image not be decoded.
    """

    def read(path: str) -> Arrays:
        table = read_columns(store, path, COLUMNS)
        return decode_rows(table, config.images_per_class, stored_side(config.train), store.uri(path), left_out, extra)

    with ThreadPoolExecutor(_READERS) as pool:  # object stores answer slowly, and decoding leaves Python
        return join(pool.map(read, shards))


def decode_rows(
    table: pa.Table,
    images_per_class: int,
    max_side: int,
    shard: str,
    left_out: NDArray[np.int64] = NOTHING,
    extra: NDArray[np.int64] = NO_EXTRAS,
) -> Arrays:
    """The usable images of a shard: status ok, and inside the prefix of `images_per_class` or of the extra images.

    Args:
        table: with `COLUMNS`.
        images_per_class: rows with a larger index (the surplus of the last shard) are left out.
        max_side: pixels of the shorter side that larger images are resized to.
        shard: its name, for the error.
        left_out: sorted ids of images that are not wanted.
        extra: as for `synthetic_images`.

    Raises:
        WorkError: the image of a row with status ok cannot be decoded.
    """
    usable = table.filter(pa.array(is_usable(table, images_per_class, left_out, extra)))
    if not len(usable):
        return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.int64)
    images = []
    for identifier, image in zip(usable["image_id"].to_pylist(), usable["image"].to_pylist(), strict=True):
        with telling_image(shard, identifier):
            images.append(decode(image["bytes"], max_side))
    return np.stack(images), usable["class_index"].to_numpy().astype(np.int64)


def decode(data: bytes, max_side: int) -> NDArray[np.uint8]:
    """An encoded image as RGB uint8 [H, W, 3], its shorter side resized to `max_side` when larger. Raises `OSError`."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return np.asarray(_with_shorter_side(image, max_side) if min(image.size) > max_side else image)


def _with_shorter_side(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    size = (round(image.width * side / shorter), round(image.height * side / shorter))
    return image.resize(size, Image.Resampling.BICUBIC)


def decode_square(data: bytes, side: int) -> NDArray[np.uint8]:
    """An encoded photograph of any size as RGB uint8 [side, side, 3]: shorter side resized, then the centre.

    Photographs have all shapes and a batch has one. Generated images are squares, and models are scored on the centre
    square, so the twin learns from that, too. Raises what PIL raises.
    """
    image = _with_shorter_side(Image.open(io.BytesIO(data)).convert("RGB"), side)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def join(parts: Iterable[Arrays]) -> Arrays:
    """The arrays of all shards in one; parts without images are passed over."""
    filled = [part for part in parts if len(part[1])]
    if not filled:
        return np.zeros((0, 0, 0, 3), np.uint8), np.zeros(0, np.int64)
    return np.concatenate([images for images, _ in filled]), np.concatenate([labels for _, labels in filled])


def real_images(config: RunConfig) -> Arrays:
    """The first `images_per_class` real training images of each class, index by index.

    Raises `InputError` when there are none such, one cannot be read, or they are too large for memory.
    """
    if (folder := real_folder(config)) is not None:
        return folder_images(folder, real_side(config))
    images, labels = load_fashion_mnist(config.data_dir, "train")
    rows = class_prefix(labels, config.images_per_class)
    return as_rgb32(images[rows]), labels[rows].astype(np.int64)


def real_folder(config: RunConfig) -> RealFolder | None:
    """The files of `train.real_data`; None when Fashion-MNIST's images are meant. Raises `InputError`."""
    settings = config.train
    if settings.real_data is not None:
        return open_real_folder(settings, load_class_table(config.classes), config.images_per_class)
    if config.classes != REAL_DATA:
        raise InputError(
            f"train.data={settings.data} knows the training images of {REAL_DATA} only, not of classes "
            f"{config.classes!r}; give a folder with a sub-folder of real images per WNID as train.real_data"
        )
    return None


def check_real_images(config: RunConfig) -> None:
    """Raises `InputError` when a run cannot have the real images that it asks for; reads no picture of a folder."""
    if real_folder(config) is None:
        class_prefix(_real_labels(config.data_dir), config.images_per_class)


@lru_cache(maxsize=4)
def _real_labels(data_dir: str | None) -> NDArray[np.uint8]:
    return load_fashion_mnist(data_dir, "train")[1]


def real_side(config: RunConfig) -> int:
    """Pixels of the squares that a folder's images become; of a mixed training those of the generated ones."""
    side = stored_side(config.train)
    if config.train.data != "mixed":
        return side
    recipe = config.recipe
    if recipe.width != recipe.height:
        raise InputError(
            f"train.data=mixed needs square generated images, and recipe.width x height is {recipe.width} x "
            f"{recipe.height}; make them equal"
        )
    return min(side, recipe.width)


def folder_images(folder: RealFolder, side: int) -> Arrays:
    """All images of a folder, decoded at once. Raises `InputError` when one cannot be read."""
    images = np.empty((len(folder), side, side, 3), np.uint8)

    def read(row: int) -> None:
        images[row] = read_square(folder.files[row], side)

    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(read, range(len(folder))):
            pass
    return images, folder.labels


def read_square(path: Path, side: int) -> NDArray[np.uint8]:
    """A file as `decode_square` gives it. Raises `InputError` with its name when it cannot be read."""
    with telling_file(str(path)):
        return decode_square(path.read_bytes(), side)


@contextmanager
def telling_file(name: str) -> Iterator[None]:
    """Raises `InputError` with the file's name when a real image in it cannot be read."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"real training image {name!r} cannot be read ({error}); replace or remove it") from error


def check_classes(labels: NDArray[np.int64], class_names: list[str]) -> None:
    """Raises `InputError` when a class has no image: a classifier would never learn it."""
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [name for name, count in zip(class_names, counts, strict=True) if count == 0]
    if empty:
        raise InputError(
            f"{len(empty)} of {len(class_names)} classes have no usable image ({', '.join(map(repr, empty[:5]))}); "
            "look at the status and reason columns of the image set, or raise images_per_class"
        )


def check_memory(parts: Sequence[Part], config: RunConfig) -> None:
    """Raises `InputError` when all decoded images together would be larger than `train.max_memory_gib`."""
    gib = 0.0
    for num_images, width, height in parts:
        scale = min(1.0, stored_side(config.train) / min(width, height))
        gib += num_images * round(width * scale) * round(height * scale) * 3 / 2**30
    if gib > config.train.max_memory_gib:
        can_stream = config.train.ingest == "memory" and (config.train.data != "real" or config.train.real_data)
        other = "use --set train.ingest=stream" if can_stream else "lower images_per_class"
        counts = " and ".join(str(num_images) for num_images, _, _ in parts)
        raise InputError(
            f"{counts} decoded images take {gib:.1f} GiB, more than train.max_memory_gib "
            f"{config.train.max_memory_gib}; {other}, or raise the limit"
        )
