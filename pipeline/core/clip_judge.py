"""What a CLIP model says of generated images: do they show their class, and do they look like photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from pipeline.core.clip_layout import DOMAINS
from pipeline.core.errors import InputError

TEXTS_PER_FORWARD = 256


@dataclass(frozen=True)
class Judgement:
    """What CLIP says of n images.

    Args:
        best: class whose text is nearest, int64 [n]; the image's own one when no other text is nearer.
        own_score: cosine to the text of the image's own class, float32 [n], -1..1.
        best_score: cosine to the nearest class's text, float32 [n].
        domain: index into `DOMAINS`, int64 [n].
        vectors: image embeddings of length 1, float32 [n, d].
    """

    best: NDArray[np.int64]
    own_score: NDArray[np.float32]
    best_score: NDArray[np.float32]
    domain: NDArray[np.int64]
    vectors: NDArray[np.float32]


class ClipJudge:
    """A CLIP model with the embeddings of all its questions.

    Args:
        directory: with config.json, preprocessor_config.json, a tokenizer and safetensors.
        names: of the classes, in label order; text that is only tokenized.
        prompt: what a class is looked for with, `{}` is its name.
        device: `cpu` or `cuda`.

    Raises:
        InputError: the directory holds no such model.
    """

    def __init__(self, directory: Path, names: Sequence[str], prompt: str, device: str) -> None:
        self._device = torch.device(device)
        transformers.utils.logging.disable_progress_bar()  # bars, once per actor, drown a job's log
        try:
            loaded: Any = CLIPModel.from_pretrained(
                directory, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            self._processor = CLIPImageProcessor.from_pretrained(directory, local_files_only=True)
            self._tokenizer = CLIPTokenizer.from_pretrained(directory, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"audit.clip: {str(directory)!r} cannot be loaded: {reason}") from error
        model, report = loaded
        if missing := sorted(report["missing_keys"]):  # transformers would fill them with random numbers
            raise InputError(f"audit.clip: {str(directory)!r} is no CLIP model: it lacks {missing[0]}")
        self._model = model.float().eval().to(self._device)
        # Classes may have one text, as none says another name: they share one vector, so that their scores are equal.
        self._class_vectors, self._vector_of_class = torch.unique(
            self._text_vectors([with_name(prompt, name) for name in names]), dim=0, return_inverse=True
        )
        by_domain = [
            self._text_vectors([with_name(text, name) for name in names] if "{}" in text else [text] * len(names))
            for text in DOMAINS.values()
        ]
        self._domain_vectors = torch.stack(by_domain, dim=1)  # [classes, domains, d]

    @torch.no_grad()
    def judge(self, images: Sequence[Image.Image], labels: Sequence[int]) -> Judgement:
        """All of a batch: RGB images of any size, and the class each was made for."""
        pixels = self._processor(images=list(images), return_tensors="pt").pixel_values.to(self._device, torch.float32)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        vectors = F.normalize(self._model.visual_projection(pooled), dim=1)
        own = torch.as_tensor(labels, device=self._device)
        scores = (vectors @ self._class_vectors.T)[:, self._vector_of_class]
        own_score = scores.gather(1, own[:, None])[:, 0]
        best_score, best = scores.max(dim=1)
        in_domains = torch.einsum("nd,nkd->nk", vectors, self._domain_vectors[own])
        return Judgement(
            best=torch.where(own_score == best_score, own, best).cpu().numpy(),
            own_score=own_score.cpu().numpy(),
            best_score=best_score.cpu().numpy(),
            domain=in_domains.argmax(dim=1).cpu().numpy(),
            vectors=vectors.cpu().numpy(),
        )

    @torch.no_grad()
    def _text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of length 1, float32 [n, d]: one for all texts of the same tokens, cut at CLIP's 77."""
        length = self._model.config.text_config.max_position_embeddings
        keys = [tuple(ids) for ids in self._tokenizer(list(texts), truncation=True, max_length=length).input_ids]
        different = dict(zip(keys, texts, strict=True))
        parts = []
        for start in range(0, len(different), TEXTS_PER_FORWARD):
            part = list(different.values())[start : start + TEXTS_PER_FORWARD]
            tokens = self._tokenizer(part, padding=True, truncation=True, max_length=length, return_tensors="pt")
            pooled = self._model.text_model(
                input_ids=tokens.input_ids.to(self._device), attention_mask=tokens.attention_mask.to(self._device)
            ).pooler_output
            parts.append(F.normalize(self._model.text_projection(pooled), dim=1))
        place = {key: number for number, key in enumerate(different)}
        return torch.cat(parts)[[place[key] for key in keys]]


def with_name(prompt: str, name: str) -> str:
    """The prompt with the class's name, in which braces are only text."""
    return prompt.replace("{}", name)
