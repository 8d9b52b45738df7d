"""How a pipeline computes: options that change its speed, and at most the last bit of a pixel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.core.config import EngineConfig
from pipeline.core.errors import InputError

_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
_FOR_THE_REST = (SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)


def apply_options(pipeline: Any, options: EngineConfig) -> list[Memo]:
    """Set a diffusers pipeline up in place; call after it is on its device.

    Returns:
        The memos that `remembering` turns on for a call. None with `compile`, which would break its graphs at them.

    Raises:
        InputError: the pipeline has no fused projections.
    """
    denoiser = denoiser_of(pipeline)
    parts = [denoiser, pipeline.vae]
    if options.channels_last:
        for part in parts:
            part.to(memory_format=torch.channels_last)
    if options.fuse_qkv:
        fuse = getattr(pipeline, "fuse_qkv_projections", None)
        if fuse is None:
            raise InputError(f"generate.engine.fuse_qkv: {type(pipeline).__name__} cannot fuse; give false")
        with torch.no_grad():
            fuse()
    if options.compile:
        denoiser.compile()
        pipeline.vae.decoder.compile()
        return []
    return list(_memoize(denoiser))


def denoiser_of(pipeline: Any) -> nn.Module:
    """The network that is called once per step."""
    found: nn.Module = pipeline.unet if getattr(pipeline, "unet", None) is not None else pipeline.transformer
    return found


def check_attention(options: EngineConfig, device: str, dtype: torch.dtype) -> None:
    """Raises `InputError` when the wanted attention kernel can compute nothing here: in this type, on this device."""
    if options.attention == "default":
        return
    one = torch.zeros(1, 1, 64, 64, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings(), sdpa_kernel(_BACKENDS[options.attention]):
            warnings.simplefilter("ignore")  # one for each reason against each kernel
            F.scaled_dot_product_attention(one, one, one)
    except RuntimeError as error:
        raise InputError(
            f"generate.engine.attention={options.attention} is not there for {str(dtype).removeprefix('torch.')} on "
            f"{device} ({error}); give default"
        ) from error


def attention(options: EngineConfig) -> AbstractContextManager[None]:
    """The context in which `scaled_dot_product_attention` prefers the wanted kernel, or torch's own choice.

    A layer that the kernel cannot do takes the next one: the decoder's attention has one head of 512 channels, and
    flash and cudnn end at 256.
    """
    if options.attention == "default":
        return nullcontext()
    wanted = _BACKENDS[options.attention]
    return sdpa_kernel([wanted, *(other for other in _FOR_THE_REST if other != wanted)], set_priority=True)


class Memo(nn.Module):
    """A layer that answers the same tensor object with what it answered before.

    Cross-attention projects the text to keys and values anew in every step, though the text does not change from step
    to step. Within `remembering` it is done once: the same numbers, 15 % of the work of the embedded generator.

    Args:
        layer: what is remembered.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.is_on = False
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """The layer's output."""
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        result: torch.Tensor = self.layer(value)
        if self.is_on:
            self._last = (value, result)  # the input is kept too, so that no other tensor takes its identity
        return result

    def switch(self, *, is_on: bool) -> None:
        """Begin to remember, or stop and forget."""
        self.is_on, self._last = is_on, None


@contextmanager
def remembering(memos: list[Memo]) -> Iterator[None]:
    """One call of a pipeline, during which its text does not change."""
    for memo in memos:
        memo.switch(is_on=True)
    try:
        yield
    finally:
        for memo in memos:
            memo.switch(is_on=False)


def _memoize(denoiser: nn.Module) -> Iterator[Memo]:
    for module in list(denoiser.modules()):
        if isinstance(module, Attention) and module.is_cross_attention:
            names = ("to_kv",) if getattr(module, "fused_projections", False) else ("to_k", "to_v")
            for name in names:
                memo = Memo(getattr(module, name))
                setattr(module, name, memo)
                yield memo
