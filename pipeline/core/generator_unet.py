"""The UNet of the embedded generator, trained in the latents together with the text encoder.

v-prediction (Salimans and Ho 2022, arXiv:2202.00512) on the cosine schedule of Nichol and Dhariwal 2021
(arXiv:2102.09672): its last step is pure noise, which is what sampling begins with.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from pipeline.core.errors import InputError
from pipeline.core.generator_config import UnetConfig
from pipeline.core.generator_parallel import ParallelGradients
from pipeline.core.generator_state import load_state, save_state
from pipeline.core.generator_text import CaptionSampler
from pipeline.core.generator_vae import LATENT_SIZE

NUM_TRAIN_TIMESTEPS = 1000
SCHEDULE = {
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
}


def build_unet(config: UnetConfig, latent_channels: int, text_width: int) -> UNet2DConditionModel:
    """A UNet with random weights for 8x8 latents."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=config.num_heads,  # in this class of diffusers the number of heads, under an old name
        norm_num_groups=config.norm_num_groups,
    )


def build_sampler() -> DPMSolverMultistepScheduler:
    """The sampler that is saved with the model: DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), second order."""
    return DPMSolverMultistepScheduler(**SCHEDULE, timestep_spacing="trailing", steps_offset=1)


class Denoiser(nn.Module):
    """UNet and text encoder as one module, so that both train and are averaged together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder


class UnetTrainer:
    """Trains a UNet and a text encoder; keeps the running average of their weights, which is what is exported.

    Args:
        config: training settings.
        denoiser: what is trained.
        latents: float32 [N, channels, 8, 8] of unit variance.
        labels: int64 [N].
        captions: draws the captions.
        seed: of batches, captions, timesteps and noise.
        num_threads: slices of a batch that are computed at the same time.
    """

    def __init__(
        self,
        config: UnetConfig,
        denoiser: Denoiser,
        latents: torch.Tensor,
        labels: torch.Tensor,
        captions: CaptionSampler,
        *,
        seed: int,
        num_threads: int,
    ) -> None:
        self.config, self.denoiser, self.captions, self.seed = config, denoiser, captions, seed
        self.latents, self.labels = latents, labels
        self.average = copy.deepcopy(denoiser).eval().requires_grad_(requires_grad=False)
        self.optimizer = torch.optim.AdamW(
            denoiser.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.step = 0
        self.mean_loss = 0.0
        self.seconds = 0.0
        self._schedule = DDPMScheduler(**SCHEDULE)
        self._parallel = ParallelGradients(list(denoiser.parameters()), num_threads)

    def learning_rate(self, step: int) -> float:
        """Warm-up, constant, then linear to zero in the cooldown; before it, no step depends on `num_steps`."""
        cooldown = max(1.0, self.config.cooldown_fraction * self.config.num_steps)
        left = (self.config.num_steps - step) / cooldown
        return self.config.learning_rate * min(1.0, (step + 1) / self.config.warmup_steps, left)

    def train_step(self) -> float:
        """One optimizer step; returns its loss (mean squared error of v, about 1 before training)."""
        config, size = self.config, self.config.batch_size
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        picked = torch.randint(len(self.latents), (size,), generator=generator)
        latents = self.latents[picked]
        noise = torch.randn(latents.shape, generator=generator)
        # One timestep from each of `size` equal parts: the loss varies less between steps than with free draws.
        parts = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
        timesteps = (parts * NUM_TRAIN_TIMESTEPS).long().clamp(max=NUM_TRAIN_TIMESTEPS - 1)
        # Sorted by caption, the slices that run at the same time share few of them: each text is encoded about once.
        captions, order = self.captions.sample(self.labels[picked], generator).sort()
        latents, noise = latents[order], noise[order]
        noisy = self._schedule.add_noise(latents, noise, timesteps)
        target = self._schedule.get_velocity(latents, noise, timesteps)
        loss = self._parallel.backward(self._loss, noisy, timesteps, captions, target)
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        self.optimizer.step()
        self.step += 1
        self._update_average(min(config.ema_decay, (1 + self.step) / (10 + self.step)))
        self.mean_loss = loss if self.step == 1 else 0.99 * self.mean_loss + 0.01 * loss
        return loss

    def _loss(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, captions: torch.Tensor, target: torch.Tensor
    ) -> torch.Tensor:
        different, which = captions.unique(return_inverse=True)
        text = self.denoiser.text_encoder(self.captions.token_ids[different]).last_hidden_state
        predicted = self.denoiser.unet(noisy, timesteps, text[which]).sample
        return F.mse_loss(predicted, target)

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        averaged: list[torch.Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(averaged, list(self.denoiser.parameters()), 1 - decay)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"denoiser": self.denoiser, "average": self.average, "optimizer": self.optimizer}

    def save(self, path: Path) -> None:
        """Keep everything that `load` needs to go on as if nothing had happened."""
        progress = {"step": self.step, "loss": self.mean_loss, "seconds": self.seconds}
        save_state(path, self._parts(), {**progress, "num_steps": self.config.num_steps})

    def load(self, path: Path) -> None:
        """Go on from a file of `save`; without the file, from the beginning.

        Raises:
            InputError: it is damaged, or `num_steps` is another one and a step of either cooldown is made already: its
                rate would not be the one that the config tells.
        """
        progress = load_state(path, self._parts())
        self.step = int(progress.get("step", 0))
        wanted = self.config.num_steps
        before = int(progress.get("num_steps", wanted))  # states of the first version do not say
        cooldown_start = (1 - self.config.cooldown_fraction) * min(before, wanted)
        if before != wanted and self.step > cooldown_start:
            raise InputError(
                f"{str(path)!r} holds {self.step} steps towards unet.num_steps={before}; {wanted} instead could be "
                f"taken only up to the cooldown's start, step {int(cooldown_start)}; go on with "
                f"unet.num_steps={before}, or give another --work"
            )
        self.mean_loss = progress.get("loss", 0.0)
        self.seconds = progress.get("seconds", 0.0)

    def train(
        self,
        state_file: Path,
        checkpoint_every_s: float,
        on_checkpoint: Callable[[], None],
        log: Callable[[str], None] = print,
    ) -> None:
        """Train to `num_steps`, from `state_file` if it is there.

        Args:
            state_file: where the training state is kept.
            checkpoint_every_s: seconds between saved states.
            on_checkpoint: called after each saved state, the last one included.
            log: gets progress lines.

        Raises:
            InputError: `state_file` cannot be gone on from, see `load`.
        """
        self.load(state_file)
        last = saved = time.monotonic()
        while self.step < self.config.num_steps:
            self.train_step()
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.step % 50 == 0:
                log(f"unet {self.step}/{self.config.num_steps} loss {self.mean_loss:.4f} {self.seconds:.0f} s")
            if now - saved > checkpoint_every_s or self.step == self.config.num_steps:
                saved = now
                self.save(state_file)
                on_checkpoint()
