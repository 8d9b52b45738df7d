"""Tokenizer and text encoder of the embedded generator, and what it reads in a step of its training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipeline.core.captions import Captions
from pipeline.core.errors import InputError
from pipeline.core.generator_config import TextConfig

CONTEXT_LENGTH = 77
START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> CLIPTokenizer:
    """A byte-level CLIP tokenizer whose merges are learnt from texts. It can write any text: nothing is unknown.

    Args:
        texts: the corpus.
        vocabulary_size: at most this many tokens; fewer when the corpus has no more pairs to merge.
    """
    pattern = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(BPE(end_of_word_suffix=WORD_END))
    learner.normalizer, learner.pre_tokenizer = pattern.normalizer, pattern.pre_tokenizer
    num_merges = vocabulary_size - 2 * len(alphabet) - 2
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=num_merges + 2 * len(alphabet),
            initial_alphabet=alphabet,
            end_of_word_suffix=WORD_END,
            show_progress=False,
        ),
    )
    learnt: list[Any] = [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]][:num_merges]
    tokens = [*alphabet, *(char + WORD_END for char in alphabet), *(left + right for left, right in learnt), START, END]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=learnt, model_max_length=CONTEXT_LENGTH)


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids int64 [len(texts), 77], padded as a Stable Diffusion pipeline does. Raises `InputError` if cut."""
    longest = max(texts, key=lambda text: len(tokenizer(text).input_ids))
    if len(tokenizer(longest).input_ids) > CONTEXT_LENGTH:
        raise InputError(f"the caption {longest!r} has more than {CONTEXT_LENGTH} tokens; raise text.vocabulary_size")
    ids: torch.Tensor = tokenizer(
        texts, padding="max_length", max_length=CONTEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def build_text_encoder(config: TextConfig, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A CLIP text encoder with random weights for a tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=CONTEXT_LENGTH,
            projection_dim=config.hidden_size,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class CaptionSampler:
    """Draws the caption of every image of a batch, with few different texts so that encoding them stays cheap.

    In one batch, all images of a class that get a background get the same one; each batch draws another.

    Args:
        captions: all captions.
        tokenizer: makes the token ids.
        dropout: share of empty captions.
    """

    def __init__(self, captions: Captions, tokenizer: CLIPTokenizer, dropout: float) -> None:
        self.token_ids = tokenize(tokenizer, captions.texts())
        self._counts = torch.tensor([[len(texts) for texts in rows] for rows in captions.by_class])
        ends = self._counts.flatten().cumsum(0)
        self._first = (1 + ends - self._counts.flatten()).reshape(self._counts.shape)
        self._dropout = dropout

    def sample(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The captions int64 [B] of labels int64 [B], as rows of `token_ids`."""
        scene = (torch.rand(self._counts.shape, generator=generator) * self._counts).long()
        recipe = torch.randint(self._counts.shape[1], labels.shape, generator=generator)
        chosen: torch.Tensor = (self._first + scene)[labels, recipe]
        chosen[torch.rand(labels.shape, generator=generator) < self._dropout] = 0
        return chosen
