"""The token count against the tokenizers that models really use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.classes import load_class_table
from pipeline.core.clip_tokens import (
    CONTEXT_LENGTH,
    VOCABULARY_SIZE,
    _vocabulary,
    clip_read_tokens,
    clip_token_counts,
    clip_tokenizer,
)
from pipeline.core.prompts import Drawn, render, template_names

ODD = [
    "",
    "  \t ",
    "a\nb\tc\u00a0d",
    "don't we're I'LL o'clock",
    "naïve café cafe\u0301 Straße",
    "日本語テキスト",
    "123 4567 ٣٤ Ⅷ x²",
    "_under__score_ {{ c }} <b>'\"",
    "😀😀 🦩🏳️‍🌈",
    "\u200bzero\u200dwidth",
    "a" * 5000,
]


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    """Every recipe on all 1,000 classes of ImageNet-1K."""
    rows, scenes = load_class_table("imagenet1k").rows, load_backgrounds("places365")
    return [
        render(source, row, Drawn(background=scenes[row["class_index"] % len(scenes)]))
        for source in template_names().values()
        for row in rows
    ]


@pytest.fixture(scope="module")
def stable_diffusion_tokenizer() -> Any:
    """The class that Stable Diffusion's directory names, with CLIP's published vocabulary."""
    from transformers import CLIPTokenizer

    vocabulary, merges = _vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


@pytest.fixture(scope="module")
def open_clip_tokenizer() -> Any:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def ids(text: str) -> list[int]:
    found: list[int] = clip_tokenizer().encode(text).ids
    return found


def test_vocabulary_has_clips_size_and_end_marks() -> None:
    assert clip_tokenizer().get_vocab_size() == VOCABULARY_SIZE
    assert ids("") == [49406, 49407]


def test_ids_are_those_that_openai_published() -> None:
    """`a photo of a cat` is 320 1125 539 320 2368 in CLIP's own repository."""
    assert ids("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


def test_all_prompts_have_the_ids_of_open_clip(prompts: list[str], open_clip_tokenizer: Any) -> None:
    wrong = [text for text in prompts if ids(text)[1:-1] != open_clip_tokenizer.encode(text)]
    assert wrong == []


def test_all_prompts_have_the_ids_of_stable_diffusion(prompts: list[str], stable_diffusion_tokenizer: Any) -> None:
    assert [ids(text) for text in prompts] == stable_diffusion_tokenizer(prompts)["input_ids"]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_has_the_ids_of_open_clip(text: str, open_clip_tokenizer: Any) -> None:
    assert ids(text)[1:-1] == open_clip_tokenizer.encode(text)


@given(st.text())
def test_any_text_has_the_count_of_stable_diffusion(stable_diffusion_tokenizer: Any, text: str) -> None:
    assert clip_token_counts([text]) == [len(stable_diffusion_tokenizer(text)["input_ids"])]


def test_counts_are_not_cut_off() -> None:
    assert clip_token_counts(["dog " * 75, "dog " * 76]) == [CONTEXT_LENGTH, CONTEXT_LENGTH + 1]


def test_end_mark_in_a_text_is_one_token() -> None:
    assert clip_token_counts(["<|endoftext|>"]) == [3]


def test_what_is_read_ends_where_stable_diffusion_cuts(stable_diffusion_tokenizer: Any) -> None:
    texts = ["dog " * count for count in (74, 75, 76, 90)]
    full, cut, *longer = clip_read_tokens(texts)
    assert cut == longer[0] == longer[1] != full and clip_read_tokens(["A  Dog"]) == clip_read_tokens(["a dog"])
    known = stable_diffusion_tokenizer(texts, truncation=True, max_length=CONTEXT_LENGTH)["input_ids"]
    assert [list(ids) for ids in (full, cut, *longer)] == [ids[: CONTEXT_LENGTH - 1] for ids in known]
