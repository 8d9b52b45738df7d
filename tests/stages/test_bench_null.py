from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.stages.bench_null import jpeg_of


@pytest.mark.parametrize("size", [3_000, 10_000, 60_000])
def test_a_ready_image_is_a_jpeg_of_the_asked_size(size: int) -> None:
    data = jpeg_of(7 << 32 | 5, size)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert (len(data), image.format, image.size) == (size, "JPEG", (64, 64))


def test_no_two_ready_images_have_the_same_bytes() -> None:
    assert len({jpeg_of(identifier, 3_000) for identifier in range(1000)}) == 1000
