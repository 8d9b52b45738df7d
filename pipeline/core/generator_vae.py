"""The autoencoder of the embedded generator: 32x32 RGB images to 8x8 latents of zero mean and unit variance."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import nn

from pipeline.core.generator_config import VaeConfig
from pipeline.core.generator_parallel import ParallelGradients
from pipeline.core.generator_state import load_state, save_state

IMAGE_SIZE = 32
LATENT_SIZE = 8
ENCODE_BATCH = 100


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """An autoencoder with random weights."""
    levels = len(config.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def vae_loss(vae: AutoencoderKL, config: VaeConfig, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """L1 + MSE + differences + KL for images float32 [B, 3, 32, 32] in [-1, 1], noise float32 [B, channels, 8, 8]."""
    posterior = vae.encode(images).latent_dist
    restored = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    error = restored - images
    across = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    pixels = error.abs().mean() + error.square().mean()
    loss: torch.Tensor = pixels + config.gradient_weight * across + config.kl_weight * kl
    return loss


def train_vae(
    config: VaeConfig,
    images: torch.Tensor,
    seed: int,
    state_file: Path,
    checkpoint_every_s: float,
    *,
    num_threads: int,
    log: Callable[[str], None] = print,
) -> tuple[AutoencoderKL, dict[str, float]]:
    """Train an autoencoder, or go on from the state in `state_file`.

    Args:
        config: architecture and training.
        images: float32 [N, 1, 32, 32] in [-1, 1]; made RGB here.
        seed: of weights, batches and noise.
        state_file: where the training state is kept.
        checkpoint_every_s: seconds between saved states.
        num_threads: slices of a batch that are computed at the same time.
        log: gets progress lines.

    Returns:
        The autoencoder, latents not yet normalised, and {loss, seconds}.
    """
    torch.manual_seed(seed)
    vae = build_vae(config)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.learning_rate, weight_decay=0, betas=(0.9, 0.99))
    parallel = ParallelGradients(list(vae.parameters()), num_threads)
    parts = {"vae": vae, "optimizer": optimizer}
    progress = load_state(state_file, parts)
    step, spent_s, mean_loss = int(progress.get("step", 0)), progress.get("seconds", 0.0), progress.get("loss", 0.0)
    begun = saved = time.monotonic()
    while step < config.num_steps:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        batch = images[torch.randint(len(images), (config.batch_size,), generator=generator)].expand(-1, 3, -1, -1)
        warm = min(1.0, (step + 1) / config.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        noise = torch.randn(config.batch_size, config.latent_channels, LATENT_SIZE, LATENT_SIZE, generator=generator)
        loss = parallel.backward(partial(vae_loss, vae, config), batch, noise)
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        mean_loss = loss if step == 0 else 0.98 * mean_loss + 0.02 * loss
        step += 1
        now = time.monotonic()
        if step % 50 == 0:
            log(f"vae {step}/{config.num_steps} loss {mean_loss:.4f} {spent_s + now - begun:.0f} s")
        if now - saved > checkpoint_every_s or step == config.num_steps:
            saved = now
            save_state(state_file, parts, {"step": step, "seconds": spent_s + now - begun, "loss": mean_loss})
    return vae.eval(), {"loss": mean_loss, "seconds": spent_s + time.monotonic() - begun}


def encode_images(vae: AutoencoderKL, images: torch.Tensor, num_threads: int) -> torch.Tensor:
    """Posterior means float32 [N, channels, 8, 8] of images float32 [N, 1, 32, 32] in [-1, 1].

    The mean, not a sample: the posterior is far narrower than the latents, and diffusion adds noise of its own.
    """

    @torch.no_grad()
    def encode(batch: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = vae.encode(batch.expand(-1, 3, -1, -1)).latent_dist.mode()
        return mean

    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return torch.cat(list(pool.map(encode, images.split(ENCODE_BATCH))))


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Fold zero mean and unit variance per channel into the 1x1 convolutions around the latents, in place.

    Stable Diffusion's one `scaling_factor` cannot move the mean or treat channels apart; after this it is 1.

    Returns:
        The latents as the changed autoencoder encodes them.
    """
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std[None, :, None, None]
    quant.weight[:channels] /= std[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / std
    quant.bias[channels:] -= 2 * std.log()  # the second half is the log of the variance
    return (latents - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def reconstruction_psnr_db(vae: AutoencoderKL, images: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images float32 [N, 1, 32, 32] in [-1, 1] after encoding and decoding."""
    total = 0.0
    for batch in images.split(ENCODE_BATCH):
        rgb = batch.expand(-1, 3, -1, -1)
        restored = vae.decode(vae.encode(rgb).latent_dist.mode()).sample.clamp(-1, 1)
        total += F.mse_loss(restored / 2, rgb / 2, reduction="sum").item()
    return -10 * math.log10(total / (images.numel() * 3))
