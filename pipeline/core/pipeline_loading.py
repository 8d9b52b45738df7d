"""A recipe's diffusers pipeline, from a directory on this machine."""

from __future__ import annotations

import inspect
import logging
import warnings
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from pipeline.core.config import RecipeConfig
from pipeline.core.errors import InputError


def load_pipeline(directory: Path, recipe: RecipeConfig) -> Any:
    """The diffusers pipeline of a recipe, as diffusers loads it, on the CPU. Raises `InputError` as the engine."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()  # bars of a second's work, once per actor, drown a job's log
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `torch_dtype` has a new name that diffusers 0.41 lacks
            pipeline = diffusers.AutoPipelineForText2Image.from_pretrained(
                directory,
                torch_dtype=getattr(torch, recipe.dtype),
                variant=recipe.model.variant,
                use_safetensors=True,
                local_files_only=True,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"recipe.model: {str(directory)!r} cannot be loaded: {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    # One line per prompt that is cut, in each actor; the prompt table counts them.
    logging.getLogger(type(pipeline).__module__).setLevel(logging.ERROR)
    # Two lines per batch where XL's decoder goes to float32 and back.
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.ERROR)
    if getattr(pipeline, "watermark", None) is not None:
        pipeline.watermark = None  # diffusers adds one where a package happens to be installed
    if not recipe.safety_checker and getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    if recipe.scheduler != "default":
        kind, known = _scheduler_class(recipe.scheduler), pipeline.scheduler.config
        # Some clip to -1..1 unless told otherwise, which latents are not made for; a model that wants it says so.
        unclipped = "clip_sample" in inspect.signature(kind).parameters and "clip_sample" not in known
        pipeline.scheduler = kind.from_config(known, **({"clip_sample": False} if unclipped else {}))
    _check_guidance(pipeline, recipe)
    factor = pipeline.vae_scale_factor
    if recipe.width % factor or recipe.height % factor:
        raise InputError(f"recipe.width and recipe.height must be multiples of {factor} for this model")
    return pipeline


def _check_guidance(pipeline: Any, recipe: RecipeConfig) -> None:
    """Raises `InputError` for what a pipeline would pass over without a word, or meet with halves it does not have."""
    denoiser = getattr(pipeline, "unet", None)  # transformers have no such input
    is_distilled = denoiser is not None and denoiser.config.get("time_cond_proj_dim") is not None
    takes_negative = "negative_prompt" in inspect.signature(pipeline.__call__).parameters
    if recipe.negative_prompt and (is_distilled or not takes_negative):
        why = "has its guidance built in" if is_distilled else f"is a {type(pipeline).__name__} and takes none"
        raise InputError(f"recipe.negative_prompt has no effect with this model, which {why}; leave it out")
    if is_distilled and not isinstance(recipe.guidance_scale, float):
        raise InputError(
            "recipe.guidance_scale is drawn per image, which does not go with this model, which has its guidance built "
            "in; give one number"
        )


def _scheduler_class(name: str) -> Any:
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
        raise InputError(
            f"recipe.scheduler {name!r} is no scheduler of diffusers; give `default` or e.g. `DDIMScheduler`"
        )
    return found
