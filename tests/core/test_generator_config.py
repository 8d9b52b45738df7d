"""What a generator's config refuses before anything is trained."""

from __future__ import annotations

import pytest

from pipeline.core.errors import InputError
from pipeline.core.generator_config import load_generator_config


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("vae.norm_num_groups=3", "vae: .*channels 16 .*norm_num_groups 3"),
        ("unet.norm_num_groups=7", "unet: .*channels 48 .*norm_num_groups 7"),
        ("vae.block_out_channels=[-8,8,8]", "vae.block_out_channels"),
        ("unet.block_out_channels=[0,16,16]", "unet.block_out_channels"),
        ("unet.num_heads=97", "unet: .*num_heads 97 is more than the channels"),
        ("text.num_heads=3", "text: .*hidden_size 128 .*num_heads 3"),
        ("templates=[]", "templates"),
        ("seed=4294967296", "seed"),
    ],
)
def test_what_cannot_be_built_is_refused(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_generator_config("fashion", [word])


def test_heads_need_not_divide_the_channels() -> None:
    assert load_generator_config("fashion", ["unet.num_heads=5"]).unet.block_out_channels == (48, 96, 192)
