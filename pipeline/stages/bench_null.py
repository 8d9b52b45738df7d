"""A maker of ready images: the whole stage runs around it, and what is left to be measured is the stage."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from pipeline.core.artifact import sha256_bytes
from pipeline.core.identity import choose
from pipeline.core.schema import OK
from pipeline.core.shard_maker import Row, ShardMaker

_SIDE = 64  # pixels


@dataclass(frozen=True)
class NullMakers:
    """What `pipeline.stages.generate.generate` takes as `make_maker`.

    Args:
        image_bytes: of every image, each with bytes of its own.
        shard_s: seconds that a shard takes; its worker sleeps.
        first_wave: of these first shards the seconds are spread evenly from 0 to `shard_s`, as they are in a run that
            goes on for long: else all workers would finish at the same moment.
    """

    image_bytes: int
    shard_s: float = 0.0
    first_wave: int = 0

    def __call__(self, *arguments: Any) -> NullShardMaker:
        """The maker, with the arguments of `ShardMaker`."""
        maker = NullShardMaker(*arguments)
        maker.settings = self
        return maker


class NullShardMaker(ShardMaker):
    """Rows of the prompt table with ready images in them; encodes nothing, loads no model and does not import torch."""

    settings: NullMakers

    def _open_engine(self) -> Any:
        return SimpleNamespace(environment={"device": "none"})

    def rows(self, shard: int, wanted: Sequence[int] | None = None) -> dict[int, Row]:
        """Rows of a shard by their number in it, after the time that the shard takes."""
        assert wanted is None, wanted
        settings = self.settings
        if settings.shard_s:
            share = choose("bench", shard, "seconds", 1000) / 1000
            time.sleep(settings.shard_s * (share if shard < settings.first_wave else 0.9 + 0.2 * share))
        return {
            number: {**row, **ready_columns(jpeg_of(row["image_id"], settings.image_bytes))}
            for number, row in enumerate(self.prompt_rows(shard))
        }


def ready_columns(data: bytes) -> Row:
    """The columns that a row of the prompt table lacks, for an encoded image."""
    digest = sha256_bytes(data)
    return {
        "image": {"bytes": data, "path": None},
        "status": OK,
        "width": _SIDE,
        "height": _SIDE,
        "sha256": digest,
        "phash": digest[:16],
        "pixel_std": 50.0,
        "seconds": 0.0,
    }


def jpeg_of(identifier: int, size: int) -> bytes:
    """A valid JPEG file of `size` bytes (about 2,500 to 65,000) that no other identifier has."""
    start, rest = _photograph()
    padding = size - len(start) - len(rest) - 4
    # A comment segment: marker, its length with these two bytes, text.
    comment = b"%020d" % identifier + b"\0" * (padding - 20)
    return start + b"\xff\xfe" + (padding + 2).to_bytes(2, "big") + comment + rest


@lru_cache(maxsize=1)
def _photograph() -> tuple[bytes, bytes]:
    """A JPEG of noise, cut after its start marker."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=50)
    data = file.getvalue()
    return data[:2], data[2:]
