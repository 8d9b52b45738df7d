"""Captions and tokenizer of the embedded generator."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPTokenizer

from pipeline.core.captions import Captions
from pipeline.core.errors import InputError
from pipeline.core.generator_config import load_generator_config
from pipeline.core.generator_text import CONTEXT_LENGTH, CaptionSampler, tokenize, train_tokenizer


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions.of(load_generator_config("fashion"))


@pytest.fixture(scope="module")
def tokenizer(captions: Captions) -> CLIPTokenizer:
    return train_tokenizer(captions.texts(), 2048)


def test_no_caption_is_cut(captions: Captions, tokenizer: CLIPTokenizer) -> None:
    lengths = [len(tokenizer(text).input_ids) for text in captions.texts()]
    assert max(lengths) <= CONTEXT_LENGTH


def test_a_caption_that_would_be_cut_is_an_error(tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(InputError, match="more than 77 tokens"):
        tokenize(tokenizer, ["shoe", "boot " * 80])


@pytest.mark.parametrize("text", ["boot, footwear, footgear inside airfield", "q#zx überraum 日本 é"])
def test_the_tokenizer_writes_every_text_back(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    written = tokenizer.decode(ids, skip_special_tokens=True)
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert written.replace(" ", "") == text.replace(" ", "")


def test_the_tokenizer_marks_both_ends_and_pads_with_the_end(tokenizer: CLIPTokenizer) -> None:
    row = tokenize(tokenizer, ["boot"])[0].tolist()
    assert row[0] == tokenizer.bos_token_id
    assert set(row[2:]) == {tokenizer.eos_token_id}
    assert len(row) == CONTEXT_LENGTH


def test_the_tokenizer_survives_saving(tokenizer: CLIPTokenizer, tmp_path) -> None:
    tokenizer.save_pretrained(tmp_path)
    text = "sandal, shoe inside bamboo forest"
    assert CLIPTokenizer.from_pretrained(tmp_path)(text).input_ids == tokenizer(text).input_ids


@pytest.fixture(scope="module")
def drawn(captions: Captions, tokenizer: CLIPTokenizer) -> tuple[CaptionSampler, torch.Tensor, torch.Tensor]:
    sampler = CaptionSampler(captions, tokenizer, dropout=0.1)
    labels = torch.arange(20_000) % 10
    return sampler, labels, sampler.sample(labels, torch.Generator().manual_seed(3))


def test_a_share_of_captions_is_empty(drawn) -> None:
    sampler, _, rows = drawn
    assert (rows == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert sampler.token_ids[0].tolist()[2:] == sampler.token_ids[0].tolist()[1:-1]  # start mark, then only end marks


def test_images_get_captions_of_their_own_class_from_all_recipes(drawn, captions: Captions) -> None:
    _, labels, rows = drawn
    texts = captions.texts()
    for label in range(10):
        recipes = captions.by_class[label]
        got = [texts[row] for row in rows[(labels == label) & (rows > 0)].tolist()]
        shares = [sum(text in recipe for text in got) / len(got) for recipe in recipes]
        assert shares == pytest.approx([0.25] * 4, abs=0.05)
