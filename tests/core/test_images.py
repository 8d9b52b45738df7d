import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from pipeline.core.config import RecipeConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.images import BLANK_PIXEL_STD, encode_image, perceptual_hash, pixel_std

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)


def test_a_png_keeps_every_pixel():
    image = Image.open(io.BytesIO(encode_image(PIXELS, RecipeConfig(image_format="png"))))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_quality_is_a_trade_of_bytes(name: str):
    sizes = [len(encode_image(PIXELS, RecipeConfig(image_format=name, image_quality=q))) for q in (20, 95)]
    image = Image.open(io.BytesIO(encode_image(PIXELS, RecipeConfig(image_format=name))))
    assert sizes[0] < sizes[1] and image.format == name.upper() and image.size == (16, 24)


def test_the_same_pixels_are_the_same_bytes():
    assert encode_image(PIXELS, RecipeConfig()) == encode_image(PIXELS.copy(), RecipeConfig())


def test_a_blank_image_is_told_from_a_dark_one():
    blank = np.full((32, 32, 3), 127, np.uint8)
    dark = np.zeros((32, 32, 3), np.uint8)
    dark[8:24, 12:20] = 30
    assert pixel_std(blank) < BLANK_PIXEL_STD < pixel_std(dark)


def test_perceptual_hashes_are_near_for_near_images_only():
    images, _ = load_fashion_mnist(None, "test")
    hashes = [imagehash.hex_to_hash(perceptual_hash(image)) for image in as_rgb32(images[:20])]
    brighter = [imagehash.hex_to_hash(perceptual_hash(image // 2 + 60)) for image in as_rgb32(images[:20])]
    same = np.mean([a - b for a, b in zip(hashes, brighter, strict=True)])
    other = np.mean([a - b for a, b in zip(hashes, brighter[1:], strict=False)])
    assert same < 5 < 15 < other
