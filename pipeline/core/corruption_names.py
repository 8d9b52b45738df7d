"""Names of ImageNet-C's corruptions, without the library that makes them: it takes a second to import."""

from __future__ import annotations

FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""The 15 corruptions that a mean is taken over, in ImageNet-C's four families."""
STANDARD = tuple(name for names in FAMILIES.values() for name in names)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""Four more, which ImageNet-C sets apart to choose settings on: scored, but in no mean."""
ALL = (*STANDARD, *EXTRA)
SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32
"""Pixels; the library refuses smaller images."""
