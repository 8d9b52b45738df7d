"""How many tokens CLIP's text encoder sees of a prompt.

CLIP's byte-pair encoding (Radford et al. 2021; merges published by OpenAI, licence MIT) is read from the file that the
package open_clip_torch carries, without importing that package. Text is cleaned as Stable Diffusion's tokenizer does
it: NFC, runs of white space as one blank, lower case.
"""

from __future__ import annotations

import gzip
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

CONTEXT_LENGTH = 77
"""Tokens that CLIP's text encoder reads, both end marks among them; what is beyond is cut off."""

VOCABULARY_PACKAGE = "open_clip"
VOCABULARY_FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY_SIZE = 49_408
START = "<|startoftext|>"
END = "<|endoftext|>"
_WORD_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def clip_token_counts(texts: Sequence[str]) -> list[int]:
    """The number of CLIP tokens of each text, with the start and end mark, before anything is cut off."""
    return [len(encoding) for encoding in clip_tokenizer().encode_batch_fast(list(texts))]


def clip_read_tokens(texts: Sequence[str]) -> list[tuple[int, ...]]:
    """What CLIP's text encoder reads of each text, the end mark of a cut one aside: texts with equal ids are one to it.

    Capitals, spaces and what is beyond the context are not in it.
    """
    return [tuple(encoding.ids[: CONTEXT_LENGTH - 1]) for encoding in clip_tokenizer().encode_batch(list(texts))]


@cache
def clip_tokenizer() -> Tokenizer:
    """CLIP's tokenizer, ids as published, without truncation or padding."""
    vocabulary, merges = _vocabulary()
    model = BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=END)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens([START, END])  # found in a text, each is one token
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    marks = (END, vocabulary[END]), (START, vocabulary[START])
    tokenizer.post_processor = processors.RobertaProcessing(*marks, trim_offsets=False, add_prefix_space=False)
    return tokenizer


def _vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """CLIP's vocabulary (token -> id) and its merges in order of priority."""
    package = importlib.util.find_spec(VOCABULARY_PACKAGE)
    assert package is not None and package.origin is not None, "open_clip_torch is a dependency of this package"
    lines = gzip.decompress((Path(package.origin).parent / VOCABULARY_FILE).read_bytes()).decode().split("\n")
    # 256 bytes, the same at the end of a word, and the two marks need no merge; the first line is a version.
    num_merges = VOCABULARY_SIZE - 2 * 256 - 2
    merges = [(left, right) for left, right in (line.split() for line in lines[1 : 1 + num_merges])]
    # Sorted by code point, the byte alphabet has CLIP's order: printable bytes first, then the replaced ones.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(char + "</w>" for char in alphabet), *(a + b for a, b in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges
