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

from pipeline.core.errors import InputError, WorkError
from pipeline.core.generator_config import TRAINING
from pipeline.core.generator_unet import Denoiser, build_sampler

MAX_BYTES = 25_000_000


def check_out(out_dir: Path, work_dir: Path) -> None:
    """Look, before hours of work, whether the model may be written in place of `out_dir`. Both are resolved paths.

    Raises:
        InputError: one of them is or lies under a file; or `out_dir`, which is replaced as a whole, is or holds the
            work folder or the current one, or holds anything but an exported model.
    """
    for option, folder in (("--work", work_dir), ("--out", out_dir)):
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        if not nearest.is_dir():
            raise InputError(f"{option} {str(folder)!r}: {str(nearest)!r} is no folder; give another {option}")
    for name, inside in ((f"--work {str(work_dir)!r}", work_dir), ("the current folder", Path.cwd())):
        if out_dir in (inside, *inside.parents):
            raise InputError(
                f"--out {str(out_dir)!r} is or holds {name}, and is replaced as a whole; give a folder of its own"
            )
    held = {path.name for path in out_dir.iterdir()} if out_dir.exists() else set()
    if held and not {"model_index.json", TRAINING} <= held:
        raise InputError(
            f"--out {str(out_dir)!r} holds other things than a trained model, and is replaced as a whole; "
            "give a new or empty folder"
        )


def export_pipeline(
    out_dir: Path, vae: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer, record: dict[str, Any]
) -> int:
    """Write the model in float16 with `training.json` beside it, in place of what was there (see `check_out`).

    Half precision keeps 11 bits of each weight, which moves images by far less than one grey level of 255.

    Returns:
        The size in bytes.

    Raises:
        WorkError: it is larger than 25 MB.
    """
    # Hidden names: a `model.old` beside it may be the user's own copy.
    unfinished = out_dir.with_name(f".{out_dir.name}.new")
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
    old = out_dir.with_name(f".{out_dir.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out_dir.exists():
        os.replace(out_dir, old)
    os.replace(unfinished, out_dir)
    shutil.rmtree(old, ignore_errors=True)
    return size


def _half(module: torch.nn.Module) -> Any:
    return copy.deepcopy(module).half()
