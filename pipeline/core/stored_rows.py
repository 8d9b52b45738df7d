"""What single rows of a shard hold, and the error that names a row whose content cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from pipeline.core.image_set import damaged_shard

_HASH = re.compile(r"[0-9a-f]{16}")


@contextmanager
def telling_image(where: str, identifier: int) -> Iterator[None]:
    """Raises `WorkError` when an image of a shard cannot be decoded within.

    Args:
        where: the shard, for the error.
        identifier: of the image.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        # All but one are Pillow's on bad bytes; no bytes or no struct are a TypeError.
        raise damaged_shard(where, f"image {identifier} cannot be decoded: {error}") from error


def hash_value(where: str, identifier: int, word: str | None) -> int:
    """The column `phash` of a row as a number of 64 bits. Raises `WorkError` when it is none.

    Args:
        where: the shard, for the error.
        identifier: of the image.
        word: 16 hex digits.
    """
    if word is None or not _HASH.fullmatch(word):
        raise damaged_shard(where, f"phash {word!r} of image {identifier} is not 16 hex digits")
    return int(word, 16)
