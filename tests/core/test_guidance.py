from pathlib import Path

import numpy as np
import pytest

from pipeline.core.config import EngineConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine
from pipeline.core.errors import InputError
from pipeline.core.model_source import EMBEDDED
from tests.tiny_models import build_tiny_xl_model

PROMPTS, SEEDS, SCALES = ["Bag, container", "Coat, overgarment", "Bag, container"], [3, 1, 2], [1.0, 3.5, 7.5]


def images(directory: Path, recipe: RecipeConfig, scales: list[float] | None = None) -> list[np.ndarray]:
    engine = DiffusionEngine(directory, recipe, len(PROMPTS), "cpu")
    return [image.pixels.astype(int) for image in engine.generate(PROMPTS, SEEDS, scales)]


def test_each_image_is_the_one_of_its_own_guidance() -> None:
    """With the shipped generator, whose images differ a lot between these scales."""
    together = images(EMBEDDED, RecipeConfig(guidance_scale=[1, 3.5, 7.5]), SCALES)
    for position, scale in enumerate(SCALES):
        alone = images(EMBEDDED, RecipeConfig(guidance_scale=scale))[position]
        other = images(EMBEDDED, RecipeConfig(guidance_scale=scale + 2))[position]
        assert np.abs(together[position] - alone).max() <= 1
        assert np.abs(together[position] - other).max() > 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_its_bits_are_those_of_one_number_for_all(dtype: str) -> None:
    """Half precision would double what it rounds off, step by step, to 19 of 255 levels."""
    scales = [1.7, 3.3, 7.7]
    settings = {"dtype": dtype, "num_inference_steps": 10}
    together = images(EMBEDDED, RecipeConfig(guidance_scale=scales, **settings), scales)
    for position, scale in enumerate(scales):
        alone = images(EMBEDDED, RecipeConfig(guidance_scale=scale, **settings))[position]
        assert (together[position] == alone).all()


def test_drawn_guidance_of_1_or_less_is_none_as_one_number_for_all_is() -> None:
    """With the shipped generator, whose classes differ a lot."""
    together = images(EMBEDDED, RecipeConfig(guidance_scale=[0, 0.5, 1], num_inference_steps=5), [0.0, 0.5, 1.0])
    alone = images(EMBEDDED, RecipeConfig(guidance_scale=0.5, num_inference_steps=5))
    assert [np.abs(drawn - fixed).max() <= 1 for drawn, fixed in zip(together, alone, strict=True)] == [True] * 3


def test_it_goes_with_two_text_encoders(tmp_path: Path) -> None:
    directory = build_tiny_xl_model(tmp_path / "xl")
    size = {"width": 16, "height": 16, "num_inference_steps": 3}
    together = images(directory, RecipeConfig(guidance_scale=[1, 3.5, 7.5], **size), SCALES)
    alone = images(directory, RecipeConfig(guidance_scale=3.5, **size))
    assert np.abs(together[1] - alone[1]).max() <= 1


def test_a_compiled_engine_refuses_it(tiny_model: Path) -> None:
    recipe = RecipeConfig(guidance_scale=[1, 2], width=16, height=16)
    with pytest.raises(InputError, match=r"drawn per image.*give one number"):
        DiffusionEngine(tiny_model, recipe, 2, "cpu", EngineConfig(compile=True))
