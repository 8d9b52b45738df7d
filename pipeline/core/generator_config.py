"""How the embedded generator is trained: every number that decides its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.core.config_loading import PRESETS, apply_overrides, load_yaml, nearest, validate
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen

GENERATORS = PRESETS / "generators"
TRAINING = "training.json"
"""The record of its training that lies in a generator's directory."""

Channels = Annotated[int, Field(ge=1)]


def _check_divides(name: str, divisor: int, of: str, numbers: Iterable[int]) -> None:
    """Raise `ValueError` at the first number that a count of groups or heads does not divide."""
    for number in numbers:
        if number % divisor:
            raise ValueError(f"{of} {number} is no multiple of {name} {divisor}; change one of them")


class TextConfig(Frozen):
    """Tokenizer and text encoder."""

    vocabulary_size: int = Field(2048, ge=514)
    """Tokens: 256 bytes, the same at a word's end, the merges, two marks."""
    hidden_size: int = Field(128, ge=8, multiple_of=8)
    """Width of the text features, which the UNet attends to."""
    num_layers: int = Field(2, ge=1)
    """Transformer layers."""
    num_heads: int = Field(4, ge=1)
    """Attention heads."""

    @model_validator(mode="after")
    def _divides(self) -> TextConfig:
        _check_divides("num_heads", self.num_heads, "hidden_size", [self.hidden_size])
        return self


class VaeConfig(Frozen):
    """Autoencoder from 32x32x3 to 8x8x`latent_channels`, and its training."""

    block_out_channels: tuple[Channels, Channels, Channels] = (16, 32, 64)
    """Channels at 32x32, 16x16 and 8x8."""
    norm_num_groups: int = Field(8, ge=1)
    """Groups of every group norm."""
    latent_channels: int = Field(4, ge=1)
    """Channels of the latents."""
    num_steps: int = Field(1800, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(48, ge=1)
    """Images per step."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak, after `warmup_steps`; then a cosine down to zero."""
    warmup_steps: int = Field(100, ge=1)
    """Steps of linear warm-up."""
    kl_weight: float = Field(1e-4, ge=0)
    """Of the KL divergence to a unit Gaussian, in nats per latent value, against L1 + MSE on [-1, 1]."""
    gradient_weight: float = Field(0.5, ge=0)
    """Of the L1 loss on horizontal and vertical differences: it keeps the garments' texture."""

    @model_validator(mode="after")
    def _divides(self) -> VaeConfig:
        _check_divides("norm_num_groups", self.norm_num_groups, "channels", self.block_out_channels)
        return self


class UnetConfig(Frozen):
    """UNet in the latents, and the training of it and the text encoder."""

    block_out_channels: tuple[Channels, Channels, Channels] = (48, 96, 192)
    """Channels at 8x8, 4x4 and 2x2 latents."""
    norm_num_groups: int = Field(16, ge=1)
    """Groups of every group norm."""
    num_heads: int = Field(4, ge=1)
    """Attention heads in every attention layer."""
    num_steps: int = Field(6000, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(128, ge=1)
    """Images per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """After `warmup_steps`, until the cooldown."""
    warmup_steps: int = Field(200, ge=1)
    """Steps of linear warm-up."""
    cooldown_fraction: float = Field(0.3, ge=0, le=1)
    """Last part of the steps, in which the rate falls linearly to zero."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, on every weight."""
    ema_decay: float = Field(0.998, ge=0, lt=1)
    """Of the averaged weights that are exported; less in the first steps: (1 + step) / (10 + step)."""
    caption_dropout: float = Field(0.1, ge=0, le=1)
    """Share of images whose caption is empty, for classifier-free guidance."""

    @model_validator(mode="after")
    def _divides(self) -> UnetConfig:
        _check_divides("norm_num_groups", self.norm_num_groups, "channels", self.block_out_channels)
        if self.num_heads > min(self.block_out_channels[1:]):  # the first has no heads
            raise ValueError(f"num_heads {self.num_heads} is more than the channels of a block; lower it")
        return self


class GeneratorConfig(Frozen):
    """The whole training."""

    classes: str = "fashion_mnist"
    """Class table whose label order is that of the images."""
    templates: tuple[str, ...] = Field(("c", "c, h_c", "c, d_c", "c, h_c inside b"), min_length=1)
    """Recipes that captions are rendered with, all equally often."""
    backgrounds: str = "places365"
    """Background table."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of every random choice."""
    num_threads: int = Field(3, ge=1)
    """Slices of every batch that are computed at the same time."""
    checkpoint_every_s: float = Field(180, gt=0)
    """Seconds between saved training states."""
    text: TextConfig = TextConfig()
    """Tokenizer and text encoder."""
    vae: VaeConfig = VaeConfig()
    """Autoencoder."""
    unet: UnetConfig = UnetConfig()
    """UNet."""


def load_generator_config(name: str, overrides: Iterable[str] = ()) -> GeneratorConfig:
    """The config of presets/generators/<name>.yaml with `KEY=VALUE` words laid over it. Raises `InputError`."""
    known = sorted(path.stem for path in GENERATORS.glob("*.yaml"))
    if name not in known:
        raise InputError(f"--preset {name!r} is unknown{nearest(name, known)}")
    return validate(GeneratorConfig, apply_overrides(load_yaml(GENERATORS / f"{name}.yaml"), overrides))
