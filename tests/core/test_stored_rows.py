from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.core.config import RecipeConfig
from pipeline.core.errors import WorkError
from pipeline.core.images import encode_image
from pipeline.core.stored_rows import hash_value, telling_image

PNG = encode_image(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8), RecipeConfig())


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


SPOILT = {
    "cut": PNG[:1500],
    "cut in its head": PNG[:60],
    "junk": b"no image",
    "empty": b"",
    "none": None,
    "huge": PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + PNG[33:],
    "a broken chunk": PNG[:33] + chunk(b"IDAT", PNG[41:1041]) + bytes(100),
}


@pytest.mark.parametrize("name", SPOILT)
def test_an_image_that_cannot_be_decoded_names_its_shard(name: str) -> None:
    damage = r"^s\.parquet is damaged \(image 7 cannot be decoded: .*--repair"
    with pytest.raises(WorkError, match=damage), telling_image("s.parquet", 7):
        Image.open(io.BytesIO(memoryview(SPOILT[name]))).convert("RGB")  # type: ignore[arg-type]


def test_a_sound_image_and_another_error_pass() -> None:
    with telling_image("s.parquet", 7), Image.open(io.BytesIO(PNG)) as image:
        assert image.convert("RGB").size == (32, 32)
    with pytest.raises(KeyError), telling_image("s.parquet", 7):
        raise KeyError("a bug")


def test_a_hash_is_16_hex_digits() -> None:
    assert hash_value("s.parquet", 7, "00000000000000ff") == 255
    for word in (None, "", "zz", "-00000000000000f", "0" * 15, "0" * 17):
        with pytest.raises(WorkError, match=r"^s\.parquet is damaged \(phash .* of image 7"):
            hash_value("s.parquet", 7, word)
