"""The embedded generator as a Stable Diffusion directory of diffusers."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from pipeline.core.errors import WorkError
from pipeline.core.generator_config import TRAINING
from pipeline.core.generator_unet import Denoiser, build_sampler

MAX_BYTES = 25_000_000


def export_pipeline(
    out_dir: Path, vae: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer, record: dict[str, Any]
) -> int:
    """Write the model in float16 with `training.json` beside it, in place of what was there.

    Half precision keeps 11 bits of each weight, which moves images by far less than one grey level of 255.

    Returns:
        The size in bytes.

    Raises:
        WorkError: it is larger than 25 MB.
    """
    unfinished = out_dir.with_name(out_dir.name + ".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=_half(vae),
        text_encoder=_half(denoiser.text_encoder),
        tokenizer=tokenizer,
        unet=_half(denoiser.unet),
        scheduler=build_sampler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(unfinished, safe_serialization=True)
    (unfinished / TRAINING).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    files = [path for path in unfinished.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o644)  # safetensors writes files that only their owner can read
    size = sum(path.stat().st_size for path in files)
    if size > MAX_BYTES:
        raise WorkError(f"{unfinished} has {size / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f}; use fewer channels")
    old = out_dir.with_name(out_dir.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out_dir.exists():
        os.replace(out_dir, old)
    os.replace(unfinished, out_dir)
    shutil.rmtree(old, ignore_errors=True)
    return size


def _half(module: torch.nn.Module) -> Any:
    return copy.deepcopy(module).half()
