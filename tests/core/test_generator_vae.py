"""The autoencoder of the embedded generator on tiny settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.core.generator_config import VaeConfig
from pipeline.core.generator_vae import (
    build_vae,
    encode_images,
    normalise_latents,
    reconstruction_psnr_db,
    train_vae,
)

TINY = VaeConfig(block_out_channels=(8, 8, 8), norm_num_groups=4, num_steps=30, batch_size=16, warmup_steps=3)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    bars = torch.zeros(64, 1, 32, 32) - 1
    for row in range(64):
        bars[row, :, :, row % 16 : row % 16 + 8] = row / 64
    return bars


def test_training_restores_images_better(images: torch.Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = reconstruction_psnr_db(build_vae(TINY), images)
    vae, result = train_vae(TINY, images, 0, tmp_path / "vae.pt", 1e9, num_threads=2, log=lambda _: None)
    assert reconstruction_psnr_db(vae, images) > before + 3
    assert result["seconds"] > 0


def test_psnr_of_known_error(images: torch.Tensor) -> None:
    class Off:
        def encode(self, rgb):
            self.rgb = rgb
            return self

        latent_dist = property(lambda self: self)
        sample = property(lambda self: self.rgb.clamp(-0.8, 0.8))

        def mode(self):
            return self

        def decode(self, _):
            return self

    # Half of the pixels or more are -1 and come back as -0.8: an error of 0.1 on the scale of [0, 1].
    black = torch.full((4, 1, 32, 32), -1.0)
    assert reconstruction_psnr_db(Off(), black) == pytest.approx(20.0, abs=1e-3)


def test_normalised_latents_decode_to_the_same_images(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    vae = build_vae(TINY).eval()
    before = encode_images(vae, images, num_threads=2)
    with torch.no_grad():
        restored = vae.decode(before).sample
        claimed = normalise_latents(vae, before)
        after = encode_images(vae, images, num_threads=1)
        torch.testing.assert_close(vae.decode(after).sample, restored, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after, claimed, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(after.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(after.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
