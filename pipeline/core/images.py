"""Pixels to stored bytes, and the numbers that tell a blank image and near-duplicates."""

from __future__ import annotations

import io

import imagehash
import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from pipeline.core.config import RecipeConfig

BLANK_PIXEL_STD = 1.0
"""Below this standard deviation (of 0..255) an image is blank: one colour, as broken half precision leaves it."""


def encode_image(pixels: NDArray[np.uint8], recipe: RecipeConfig) -> bytes:
    """The file that is stored for an image.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        recipe: `image_format` and, for jpeg and webp, `image_quality`.

    Returns:
        A PNG (lossless, level 1: a quarter of the default's time for a tenth more bytes), JPEG or WebP file.
    """
    file = io.BytesIO()
    options = {"compress_level": 1} if recipe.image_format == "png" else {"quality": recipe.image_quality}
    Image.fromarray(pixels).save(file, recipe.image_format.upper(), **options)
    return file.getvalue()


def encoder_version(image_format: str) -> str:
    """The library that writes files of a format, `Pillow 12.0.0 (zlib 1.3.1)`: another one may give other bytes."""
    codec = {"png": ("zlib_ng", "zlib"), "jpeg": ("libjpeg_turbo", "jpg"), "webp": ("webp",)}[image_format]
    found = next((f"{name} {version}" for name in codec if (version := features.version(name))), "unknown codec")
    return f"Pillow {PIL.__version__} ({found})"


def pixel_std(pixels: NDArray[np.uint8]) -> float:
    """Standard deviation over all values of an image, 0..255."""
    return float(pixels.std())


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """64-bit DCT hash of an image uint8 [H, W, 3] as 16 hex digits.

    `imagehash.hex_to_hash(a) - imagehash.hex_to_hash(b)` is the distance of two, 0..64 bits.
    """
    return str(imagehash.phash(Image.fromarray(pixels)))
