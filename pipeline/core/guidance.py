"""Guidance of each image's own: diffusers' pipelines know only one number for a whole batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

NO_GUIDANCE = 1.0
"""At this scale the prompt's own prediction comes out."""
BASE_GUIDANCE = 2.0
"""What the pipeline is told; above 1, so that it runs the denoiser with and without the prompt."""


@contextmanager
def guided_each(denoiser: nn.Module, guidance_scales: Sequence[float]) -> Iterator[None]:
    """Within it, a pipeline called with `BASE_GUIDANCE` guides image i by `guidance_scales[i]`.

    The pipeline combines the halves of the denoiser's output, u without and t with the prompt, to u + G (t - u). So
    both halves become each image's u + g (t - u) before, rounded as the pipeline itself would round it, and that comes
    out whatever G is and whatever scheduler follows.

    Args:
        denoiser: whose output has the images without the prompt first, then those with it.
        guidance_scales: one per image of the batch, at least 0; 1 or less is no guidance: t comes out, as the pipelines
            have it with one number for all. Below 1 the formula would take the prompt away.
    """
    scales = torch.tensor(list(guidance_scales), dtype=torch.float32).clamp(min=NO_GUIDANCE)

    def rescale(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        is_tuple = isinstance(output, tuple)
        predicted = output[0] if is_tuple else output.sample
        without, with_prompt = predicted.chunk(2)
        factor = scales.to(predicted.device).view(-1, *[1] * (predicted.ndim - 1))
        away = (factor * (with_prompt - without)).to(predicted.dtype)  # in float32, as a plain number is multiplied
        moved = torch.cat([torch.where(factor == NO_GUIDANCE, with_prompt, without + away)] * 2)
        if is_tuple:
            return (moved, *output[1:])
        output.sample = moved
        return output

    handle = denoiser.register_forward_hook(rescale)
    try:
        yield
    finally:
        handle.remove()
