"""A complete CLIP directory whose answers are known, and one with random weights.

The planted one has one patch of 16x16 pixels and one layer of uniform attention in each tower, so that an image's
embedding is its colour and shape, and a text's embedding its words: red, green or blue images match the words `red`,
`green` and `blue`; images that are bright on the left are photos, those bright on the right drawings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from pipeline.core.generator_text import train_tokenizer

SIDE, WIDTH = 16, 16
COLOURS = ("red", "green", "blue")
WORDS = {"red": 0, "green": 1, "blue": 2, "photo": 3, "drawing": 4, "painting": 5, "render": 6, "page": 7}
"""Word -> axis of the embedding."""


def build_clip(directory: Path, *, planted: bool) -> Path:
    """Write the model; with `planted` false its weights are random."""
    texts = [
        f"a {style} of a {colour}" for style in ("photo", "drawing", "painting", "3D render") for colour in COLOURS
    ]
    tokenizer = train_tokenizer([*texts, "a page of text"] * 10, 900)
    layers = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **layers,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**layers, "image_size": SIDE, "patch_size": SIDE},
        projection_dim=WIDTH,
    )
    model = CLIPModel(config)
    if planted:
        tokens = {word: tokenizer(word, add_special_tokens=False).input_ids for word in WORDS}
        assert all(len(ids) == 1 for ids in tokens.values()), tokens  # each word is a token of its own
        _plant(model, {ids[0]: WORDS[word] for word, ids in tokens.items()})
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size=size, do_normalize=False, do_rescale=True
    ).save_pretrained(directory)
    return directory


@torch.no_grad()
def _plant(model: CLIPModel, axis_of_token: dict[int, int]) -> None:
    for parameter in model.parameters():
        parameter.zero_()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1)
    for tower in (model.text_model, model.vision_model):
        attention = tower.encoder.layers[0].self_attn  # queries and keys of 0: every token looks at all alike
        attention.v_proj.weight.copy_(torch.eye(WIDTH))
        attention.out_proj.weight.copy_(torch.eye(WIDTH))
    model.text_projection.weight.copy_(torch.eye(WIDTH))
    model.visual_projection.weight.copy_(torch.eye(WIDTH))
    for token, axis in axis_of_token.items():
        model.text_model.embeddings.token_embedding.weight[token, axis] = 1
    patch = model.vision_model.embeddings.patch_embedding.weight  # [WIDTH, 3, SIDE, SIDE]
    for colour in range(3):
        patch[colour, colour] = 1 / SIDE**2
    half = SIDE // 2
    for axis, sign in ((WORDS["photo"], 1), (WORDS["drawing"], -1)):
        patch[axis, :, :, :half], patch[axis, :, :, half:] = sign / SIDE**2, -sign / SIDE**2


def picture(colour: str, style: str) -> NDArray[np.uint8]:
    """An image uint8 [16, 16, 3] of one colour, bright on the left (`photo`) or on the right (`drawing`)."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    ramp = np.linspace(255, 55, SIDE).astype(np.uint8)
    pixels[:, :, COLOURS.index(colour)] = ramp if style == "photo" else ramp[::-1]
    return pixels
