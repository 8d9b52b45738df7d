"""The engine: prompts and seeds in, images out, the same pixels as calling the diffusers pipeline itself.

What it adds to the pipeline: embeddings once per distinct prompt, batches of one fixed shape, and a seed per row.
"""

from __future__ import annotations

import inspect
import platform
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import tokenizers
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from numpy.typing import NDArray

from pipeline.core.choices import highest
from pipeline.core.config import EngineConfig, RecipeConfig
from pipeline.core.engine_options import apply_options, attention, check_attention, denoiser_of, remembering
from pipeline.core.errors import InputError
from pipeline.core.guidance import BASE_GUIDANCE, guided_each
from pipeline.core.images import encoder_version
from pipeline.core.pipeline_loading import load_pipeline
from pipeline.core.safety import OwnScores, SafetyScorer

MAX_CACHED_BYTES = 512 << 20
"""Of embeddings kept on the device: 4,500 prompts of Stable Diffusion in half precision."""

_EMBEDDING_NAMES = {
    "StableDiffusionPipeline": ("prompt_embeds", "negative_prompt_embeds"),
    "StableDiffusionXLPipeline": (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ),
}
"""What `encode_prompt` returns, of the prompt and the negative one in turn; other pipelines are given text."""


@dataclass(frozen=True)
class GeneratedImage:
    """One image.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        is_nsfw: a safety checker flagged it; its pixels are black when that is the model's own.
        nsfw_score: of that checker, above 0 when it flags; None without one.
        is_finite: the decoder gave a number for every pixel; where it gave NaN, as half precision may, no pixel counts.
    """

    pixels: NDArray[np.uint8]
    is_nsfw: bool
    nsfw_score: float | None = None
    is_finite: bool = True


class DiffusionEngine:
    """A diffusers text-to-image pipeline behind one call.

    Args:
        directory: a diffusers model directory with safetensors.
        recipe: what decides pixels.
        batch_size: rows of every call of the pipeline; shorter inputs are padded by their last row.
        device: "cpu" or "cuda".
        options: how it computes.
        safety: a checker for a model without one; it looks at the finished images and leaves them as they are.

    Raises:
        InputError: the directory, scheduler, size or device is wrong, there is no such attention kernel, or there are
            two checkers.
    """

    def __init__(
        self,
        directory: Path,
        recipe: RecipeConfig,
        batch_size: int,
        device: str,
        options: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
        safety: SafetyScorer | None = None,
    ) -> None:
        self._recipe = recipe
        self._batch_size = batch_size
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("generate.device is cuda but torch sees no GPU here; use a GPU node or device cpu")
        self._device = torch.device(device)
        self.pipeline = load_pipeline(directory, recipe).to(self._device)
        self._is_guidance_drawn = not isinstance(recipe.guidance_scale, float)
        self._guidance_scale = BASE_GUIDANCE if self._is_guidance_drawn else highest(recipe.guidance_scale)
        if self._is_guidance_drawn and (type(self.pipeline).__name__ not in _EMBEDDING_NAMES or options.compile):
            raise InputError(
                "recipe.guidance_scale is drawn per image, which goes with Stable Diffusion (1, 2 and XL) without "
                "generate.engine.compile only; give one number"
            )
        checker = getattr(self.pipeline, "safety_checker", None)
        if checker is not None and safety is not None:
            raise InputError(
                "recipe.safety_model is for models without a safety checker, and this one has its own; give "
                "recipe.safety_checker=false, or no safety_model"
            )
        self._own_scores = OwnScores(checker) if isinstance(checker, StableDiffusionSafetyChecker) else None
        self._safety = safety
        self._options = options
        check_attention(options, self._device.type, getattr(torch, recipe.dtype))
        self._memos = apply_options(self.pipeline, options)
        self._tells_steps = "callback_on_step_end" in inspect.signature(self.pipeline.__call__).parameters
        self.seconds: dict[str, float] = {}
        """Seconds of the last call by part. On a GPU the last step may still run when `decode` begins to count."""
        self._embeddings: OrderedDict[str, tuple[torch.Tensor, ...]] = OrderedDict()

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], guidance_scales: Sequence[float] | None = None
    ) -> list[GeneratedImage]:
        """Make one image per prompt.

        Args:
            prompts: 1 to `batch_size` texts.
            seeds: of each image's noise, 0 <= seed < 2**63.
            guidance_scales: of each image; needed when the recipe draws it per image, else the recipe's number counts.

        Returns:
            The images, in the order of the prompts.
        """
        count = len(prompts)
        assert 0 < count == len(seeds) <= self._batch_size, (count, len(seeds), self._batch_size)
        self.seconds = {}
        padding = self._batch_size - count
        texts = [*prompts, *[prompts[-1]] * padding]
        # Drawn on the CPU, so that the noise is the same on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in [*seeds, *[seeds[-1]] * padding]]
        began = time.perf_counter()
        conditioning = self._conditioning(texts)
        encoded = last_step = time.perf_counter()

        def after_step(_pipeline: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            nonlocal last_step
            last_step = time.perf_counter()
            return values

        each: AbstractContextManager[None] = nullcontext()
        if self._is_guidance_drawn:
            assert guidance_scales is not None and len(guidance_scales) == count, guidance_scales
            each = guided_each(denoiser_of(self.pipeline), [*guidance_scales, *[guidance_scales[-1]] * padding])
        with attention(self._options), remembering(self._memos), each, self._decoder_in_its_dtype():
            output = self.pipeline(
                **conditioning,
                **({"callback_on_step_end": after_step} if self._tells_steps else {}),
                generator=generators,
                num_inference_steps=self._recipe.num_inference_steps,
                guidance_scale=self._guidance_scale,
                width=self._recipe.width,
                height=self._recipe.height,
                output_type="pt",
            )
        pixels = as_pixels(output.images[:count])
        finite = are_finite(output.images[:count])
        self.seconds = {
            "text_encode": encoded - began,
            "denoise": last_step - encoded,
            "decode": time.perf_counter() - last_step,
        }
        if self._safety is not None:
            began = time.perf_counter()
            scores = self._safety.scores(list(pixels))
            self.seconds["safety"] = time.perf_counter() - began
            judged = zip(pixels, scores, finite, strict=True)
            return [GeneratedImage(image, score > 0, score, is_finite) for image, score, is_finite in judged]
        flags = getattr(output, "nsfw_content_detected", None) or [False] * count
        own = self._own_scores.last if self._own_scores else [None] * count
        found = zip(pixels, flags, own, finite, strict=False)
        return [GeneratedImage(image, bool(flag), score, is_finite) for image, flag, score, is_finite in found]

    @contextmanager
    def _decoder_in_its_dtype(self) -> Iterator[None]:
        """XL decodes in float32 and goes back to half precision behind it, but not when decoding fails."""
        try:
            yield
        except BaseException:
            if getattr(self.pipeline, "vae", None) is not None:
                self.pipeline.vae.to(getattr(torch, self._recipe.dtype))
            raise

    @property
    def environment(self) -> dict[str, str]:
        """What the last bits of a pixel and the bytes of its file depend on beside recipe and batch shape."""
        return {
            "device": device_name(self._device.type),
            "torch_threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "numpy": np.__version__,
            "encoder": encoder_version(self._recipe.image_format),
            "scheduler": type(self.pipeline.scheduler).__name__,  # the recipe may say `default`
            # Versions of ours before these two are other images; a recipe that uses neither is told of neither.
            **({"drawn_guidance": "2"} if self._is_guidance_drawn else {}),
            **({"scheduler_clips": str(clips)} if (clips := self._scheduler_clips()) is not None else {}),
            **(_cuda_versions() if self._device.type == "cuda" else {}),
        }

    def _scheduler_clips(self) -> bool | None:
        """Whether a scheduler that the recipe names clips its predictions; None for the model's own, or one without."""
        if self._recipe.scheduler == "default":
            return None
        clips: bool | None = self.pipeline.scheduler.config.get("clip_sample")
        return clips

    def _conditioning(self, texts: list[str]) -> dict[str, Any]:
        negative = self._recipe.negative_prompt
        names = _EMBEDDING_NAMES.get(type(self.pipeline).__name__)
        if names is None:
            given = {"negative_prompt": [negative] * len(texts)} if negative else {}
            return {"prompt": texts, **given}
        rows = [self._embed(text) for text in texts]
        columns = dict(zip(names[::2], zip(*rows, strict=True), strict=True))
        if self._guidance_scale > 1:
            is_xl = "negative_pooled_prompt_embeds" in names
            zeroed = is_xl and not negative and self.pipeline.config.force_zeros_for_empty_prompt
            away = tuple(map(torch.zeros_like, rows[0])) if zeroed else self._negative
            columns.update(zip(names[1::2], zip(*[away] * len(texts), strict=True), strict=True))
        return {name: torch.cat(values) for name, values in columns.items()}

    @cached_property
    def _negative(self) -> tuple[torch.Tensor, ...]:
        """Embeddings of the negative prompt, [1, ...] each: the same for every prompt, so they are computed once."""
        return self._encode(self._recipe.negative_prompt)

    def _encode(self, text: str) -> tuple[torch.Tensor, ...]:
        """Embeddings of a text, [1, ...] each. Encoded alone, so that they depend on nothing but the text."""
        with torch.no_grad():
            encoded = self.pipeline.encode_prompt(
                prompt=text, device=self._device, num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        return tuple(encoded[::2])

    def _embed(self, text: str) -> tuple[torch.Tensor, ...]:
        """`_encode`, remembered for the prompts that came last."""
        found = self._embeddings.get(text)
        if found is None:
            self._embeddings[text] = found = self._encode(text)
            size = sum(tensor.nbytes for tensor in found)
            if len(self._embeddings) * size > MAX_CACHED_BYTES:  # all prompts of a model have the same size
                self._embeddings.popitem(last=False)
        else:
            self._embeddings.move_to_end(text)
        return found


def as_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images 0..1 [N, 3, H, W] as uint8 [N, H, W, 3] on the CPU; rounded where they are, so a GPU sends a quarter."""
    rounded = (images.float() * 255).round().to(torch.uint8)
    pixels: NDArray[np.uint8] = rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


def are_finite(images: torch.Tensor) -> list[bool]:
    """Whether each of some images [N, 3, H, W] has a number at every place; diffusers clamps infinities to 0..1."""
    flags: list[bool] = images.isfinite().flatten(1).all(1).tolist()
    return flags


def device_name(device: str) -> str:
    """The GPU's name, or for `cpu` what its rounding depends on: architecture and the instruction set of torch."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _cuda_versions() -> dict[str, str]:
    """CUDA and cuDNN that torch was built with, and the kernel's driver."""
    driver = Path("/sys/module/nvidia/version")
    return {
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "driver": driver.read_text().strip() if driver.exists() else "unknown",
    }
