"""How far an image is above the thresholds of a Stable Diffusion safety checker, as a number that can be stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPImageProcessor

from pipeline.core.errors import InputError

SPECIAL_CARE = 0.01
"""Added to every concept's score when an image is near one of the special ones, as the checker itself does."""


def concept_scores(checker: StableDiffusionSafetyChecker, embeddings: torch.Tensor) -> list[float]:
    """The highest score of each image over the checker's concepts: cosine less threshold, rounded to 0.001 as there.

    Above 0 is what the checker flags. Source: `StableDiffusionSafetyChecker.forward` in diffusers.

    Args:
        checker: whose concepts and thresholds count.
        embeddings: its projected image embeddings [N, D].
    """

    def above(concepts: torch.Tensor, thresholds: torch.Tensor) -> NDArray[np.float32]:
        cosines = cosine_distance(embeddings, concepts).float().cpu().numpy()
        return np.asarray(cosines - thresholds.float().cpu().numpy(), np.float32)

    special = above(checker.special_care_embeds, checker.special_care_embeds_weights).round(3) > 0
    added = np.float32(SPECIAL_CARE) * special.any(axis=1, keepdims=True)
    scores = (above(checker.concept_embeds, checker.concept_embeds_weights) + added).round(3)
    return [float(score) for score in scores.max(axis=1)]


class SafetyScorer:
    """A checker that looks at finished images and leaves them as they are.

    Args:
        directory: with config.json, preprocessor_config.json and safetensors, e.g. of
            `CompVis/stable-diffusion-safety-checker`.
        variant: of the weight files, or None.
        device: "cpu" or "cuda".

    Raises:
        InputError: the directory holds no such checker.
    """

    def __init__(self, directory: Path, variant: str | None, device: str) -> None:
        self._device = torch.device(device)
        transformers.utils.logging.disable_progress_bar()  # bars, once per actor, drown a job's log
        try:
            checker, report = StableDiffusionSafetyChecker.from_pretrained(
                directory, variant=variant, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            self._processor = CLIPImageProcessor.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"recipe.safety_model: {str(directory)!r} cannot be loaded: {reason}") from error
        if missing := sorted(report["missing_keys"]):  # transformers would fill them with random numbers
            raise InputError(f"recipe.safety_model: {str(directory)!r} is no safety checker: it lacks {missing[0]}")
        self._checker = checker.float().eval().to(self._device)

    @torch.no_grad()
    def scores(self, images: Sequence[NDArray[np.uint8]]) -> list[float]:
        """The score of each image uint8 [H, W, 3], all in one batch; above 0 means flagged."""
        pictures = [Image.fromarray(image) for image in images]
        pixels = self._processor(images=pictures, return_tensors="pt").pixel_values.to(self._device, torch.float32)
        pooled = self._checker.vision_model(pixels)[1]
        return concept_scores(self._checker, self._checker.visual_projection(pooled))


class OwnScores:
    """The scores of a pipeline's own checker, read from its embeddings as it works: no second look at the images.

    Args:
        checker: of the pipeline.
    """

    def __init__(self, checker: StableDiffusionSafetyChecker) -> None:
        self.last: list[float] = []
        """Of the images of its last call."""

        def hear(_module: Any, _inputs: Any, embeddings: torch.Tensor) -> None:
            self.last = concept_scores(checker, embeddings)

        checker.visual_projection.register_forward_hook(hear)
