"""Stable Diffusion's architecture with random weights: as fast as the trained one, and no download.

Shapes of v1.4 (CompVis/stable-diffusion-v1-4: 860 M parameters in the UNet, 84 M in the autoencoder, 123 M in the text
encoder, https://arxiv.org/abs/2112.10752), and one of the same kind that a CPU runs in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.core.model_source import EMBEDDED


@dataclass(frozen=True)
class Shape:
    """Widths of the three networks, and the size of the image.

    Args:
        unet_channels: of each level, from fine to coarse.
        vae_channels: as `unet_channels`.
        text_width: of the text encoder, and of what cross-attention reads.
        text_layers: of the text encoder.
        heads: of every attention of the UNet.
        layers_per_block: residual blocks of each level.
        pixels: of a side.
    """

    unet_channels: tuple[int, ...]
    vae_channels: tuple[int, ...]
    text_width: int
    text_layers: int
    heads: int
    layers_per_block: int
    pixels: int


SHAPES = {
    "sd14": Shape((320, 640, 1280, 1280), (128, 256, 512, 512), 768, 12, 8, 2, 512),
    "tiny": Shape((32, 64), (32, 32), 32, 1, 2, 1, 32),
}


def write_random_model(directory: Path, shape: Shape, dtype: torch.dtype, device: str) -> Path:
    """Write a `StableDiffusionPipeline` directory; weights are drawn on `device`, where it takes seconds.

    Args:
        directory: where to.
        shape: of the networks.
        dtype: of the saved weights.
        device: "cpu" or "cuda".

    Returns:
        `directory`. The tokenizer is the embedded generator's: text of a benchmark means nothing.
    """
    torch.manual_seed(0)
    with torch.device(device):
        unet, vae, text = networks(shape)
    StableDiffusionPipeline(
        vae=vae.to(dtype),
        text_encoder=text.to(dtype),
        tokenizer=CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer"),
        unet=unet.to(dtype),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(directory, safe_serialization=True)
    return directory


def networks(shape: Shape) -> tuple[UNet2DConditionModel, AutoencoderKL, nn.Module]:
    """UNet, autoencoder and text encoder with random weights, on torch's default device."""
    levels, factor = len(shape.unet_channels), 2 ** (len(shape.vae_channels) - 1)
    unet = UNet2DConditionModel(
        sample_size=shape.pixels // factor,
        block_out_channels=shape.unet_channels,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
        layers_per_block=shape.layers_per_block,
        attention_head_dim=shape.heads,  # diffusers reads this as the number of heads in models of this age
        cross_attention_dim=shape.text_width,
    )
    vae = AutoencoderKL(
        block_out_channels=shape.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * len(shape.vae_channels),
        up_block_types=("UpDecoderBlock2D",) * len(shape.vae_channels),
        layers_per_block=shape.layers_per_block,
        sample_size=shape.pixels,
    )
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=shape.text_width,
            intermediate_size=4 * shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=max(1, shape.text_width // 64),
            hidden_act="quick_gelu",
        )
    )
    return unet, vae, text


def flops_per_image(shape: Shape, unet_calls: int, *, guidance: bool) -> float:
    """Floating-point operations (2 per multiply-add) of one image, counted on torch's meta device.

    Args:
        shape: of the networks.
        unet_calls: forwards of the denoiser; PNDM makes one more than its steps.
        guidance: each call runs with and without the prompt.
    """
    with torch.device("meta"), torch.no_grad():
        unet, vae, text = networks(shape)
        side = shape.pixels // 2 ** (len(shape.vae_channels) - 1)
        latent, states = torch.empty(1, 4, side, side), torch.empty(1, 77, shape.text_width)
        with _counting() as step:
            unet(latent, torch.empty(1), states)
        with _counting() as decode:
            vae.decode(latent)
        with _counting() as encode:
            text(torch.empty(1, 77, dtype=torch.long))
    copies = 2 if guidance else 1
    total = copies * (unet_calls * step.get_total_flops() + encode.get_total_flops()) + decode.get_total_flops()
    return float(total)


@contextmanager
def _counting() -> Iterator[Any]:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        yield counter
