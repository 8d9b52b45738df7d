"""What an image IS: ids, row order, seeds and the hash that names an image set.

Nothing here depends on batches, actors, shards or machines, so any image can be made again alone, and
1x is a prefix of 10x is a prefix of 50x (docs/architecture.md, "Identity").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

SCHEMA_VERSION = 1
"""Part of every recipe hash: raise it when the meaning of a row changes."""

INDEX_BITS = 32
FIRST_EXTRA = 1 << 31
"""Index of a class's first extra image (`pipeline.core.extra_shards`); the uniform part has those below."""
ID_LENGTH = 16
"""Hex digits of a hash that name a directory; 64 bits, so two of a million recipes collide with p < 1e-7."""


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Raises `ValueError` on NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content_hash(value: Any) -> str:
    """sha256 (64 hex digits) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def image_id(class_index: int, index: int) -> int:
    """The int64 id of the `index`-th image of a class (both >= 0; class < 2**31, index < 2**32)."""
    assert 0 <= class_index < 1 << 31 and 0 <= index < 1 << INDEX_BITS, (class_index, index)
    return class_index << INDEX_BITS | index


def split_image_id(identifier: int) -> tuple[int, int]:
    """(class_index, index) of an image id."""
    assert 0 <= identifier < 1 << 63, identifier
    return identifier >> INDEX_BITS, identifier & (1 << INDEX_BITS) - 1


def _hash64(*parts: str | int) -> int:
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def class_permutation(wnids: Sequence[str]) -> list[int]:
    """The fixed shuffle of the classes inside every index: a list of class indices.

    Sorted by a hash of the WNID, which is stable over library versions, unlike a random generator's stream.
    """
    return sorted(range(len(wnids)), key=lambda c: (_hash64("class", wnids[c]), wnids[c]))


def row_image_id(row: int, permutation: Sequence[int]) -> int:
    """The image id of a row: index-major, all classes at index 0, then all at index 1, and so on."""
    index, position = divmod(row, len(permutation))
    return image_id(permutation[position], index)


def image_row(identifier: int, permutation: Sequence[int]) -> int:
    """The row of an image id: inverse of `row_image_id`."""
    class_index, index = split_image_id(identifier)
    return index * len(permutation) + permutation.index(class_index)


def noise_seed(recipe_hash: str, identifier: int) -> int:
    """The seed (0 <= seed < 2**63) of an image's noise, for `torch.Generator("cpu").manual_seed`."""
    return _hash64("noise", recipe_hash, identifier) >> 1


def choose(recipe_hash: str, identifier: int, purpose: str, num_choices: int) -> int:
    """A choice (0 <= choice < num_choices) of an image's prompt, e.g. purpose "background"."""
    assert num_choices > 0, num_choices
    return _hash64(purpose, recipe_hash, identifier) % num_choices


def uniform(recipe_hash: str, identifier: int, purpose: str) -> float:
    """A number (0 <= number < 1) drawn for an image, e.g. purpose "guidance"."""
    return (_hash64(purpose, recipe_hash, identifier) >> 11) / (1 << 53)


def num_rows(num_classes: int, images_per_class: int, shard_size: int) -> int:
    """Rows to make: the asked number rounded up to whole shards, so that growing a set only adds shards."""
    return num_shards(num_classes, images_per_class, shard_size) * shard_size


def num_shards(num_classes: int, images_per_class: int, shard_size: int) -> int:
    """Shards that hold `images_per_class` images of each class."""
    return -(-num_classes * images_per_class // shard_size)
