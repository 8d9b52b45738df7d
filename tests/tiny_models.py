"""A complete Stable Diffusion directory of under 2 MB with random weights: real classes, real files, no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPTextModelWithProjection

from pipeline.core.generator_config import TextConfig
from pipeline.core.generator_text import build_text_encoder, train_tokenizer


def build_tiny_model(
    directory: Path, flag_threshold: float | None = None, guidance_channels: int | None = None
) -> Path:
    """Write a model that draws 16x16 images.

    Args:
        directory: where to.
        flag_threshold: adds a safety checker that flags an image whose similarity to a concept is above this: 1 flags
            none, -1 flags all.
        guidance_channels: of a network that takes its guidance as an input, as distilled ones do.
    """
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a bag, handbag", "a shirt inside a barn"], 514)
    text = TextConfig(vocabulary_size=514, hidden_size=16, num_layers=1, num_heads=2)
    checker = None if flag_threshold is None else tiny_checker(flag_threshold)
    StableDiffusionPipeline(
        vae=_autoencoder(),
        text_encoder=build_text_encoder(text, tokenizer),
        tokenizer=tokenizer,
        unet=_unet(cross_attention_dim=16, time_cond_proj_dim=guidance_channels),
        scheduler=PNDMScheduler(skip_prk_steps=True, beta_schedule="scaled_linear", steps_offset=1),
        safety_checker=checker,
        feature_extractor=None if checker is None else _feature_extractor(),
        requires_safety_checker=checker is not None,
    ).save_pretrained(directory, safe_serialization=True)
    return directory


def spoil_decoder(directory: Path) -> Path:
    """Let a model decode every image to NaN, as one does whose numbers overflow in half precision."""
    vae = AutoencoderKL.from_pretrained(directory / "vae")
    with torch.no_grad():
        vae.decoder.conv_out.bias.fill_(float("nan"))
    vae.save_pretrained(directory / "vae", safe_serialization=True)
    return directory


def build_tiny_xl_model(directory: Path) -> Path:
    """Write a Stable Diffusion XL model of two text encoders and pooled embeddings that draws 16x16 images."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a bag, handbag", "a shirt inside a barn"], 514)
    text = TextConfig(vocabulary_size=514, hidden_size=16, num_layers=2, num_heads=2)
    encoder = build_text_encoder(text, tokenizer)
    pooled = CLIPTextConfig(**{**encoder.config.to_dict(), "projection_dim": 16})
    StableDiffusionXLPipeline(
        vae=_autoencoder(),
        text_encoder=encoder,
        text_encoder_2=CLIPTextModelWithProjection(pooled),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=_unet(
            cross_attention_dim=2 * 16,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,  # pooled text and six numbers of size and crop
        ),
        scheduler=EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        add_watermarker=False,
    ).save_pretrained(directory, safe_serialization=True)
    return directory


def build_tiny_checker(directory: Path, threshold: float = 1.0, special_threshold: float = 1.0) -> Path:
    """Write a safety checker alone, laid out as `CompVis/stable-diffusion-safety-checker`; always the same weights."""
    torch.manual_seed(0)
    tiny_checker(threshold, special_threshold).save_pretrained(directory, safe_serialization=True)
    _feature_extractor().save_pretrained(directory)
    return directory


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
    )


def _unet(**settings: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        **settings,
    )


def tiny_checker(threshold: float, special_threshold: float = 1.0) -> StableDiffusionSafetyChecker:
    """A checker of random concepts; see `build_tiny_model` for the threshold."""
    layers = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**layers, "vocab_size": 20},
        vision_config={**layers, "image_size": 16, "patch_size": 8},
        projection_dim=16,
    )
    checker = StableDiffusionSafetyChecker(config)
    torch.nn.init.normal_(checker.concept_embeds)
    torch.nn.init.normal_(checker.special_care_embeds)
    torch.nn.init.constant_(checker.concept_embeds_weights, threshold)
    torch.nn.init.constant_(checker.special_care_embeds_weights, special_threshold)
    return checker


def _feature_extractor() -> CLIPImageProcessor:
    size = {"height": 16, "width": 16}
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
