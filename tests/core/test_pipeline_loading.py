"""What a pipeline is told when it is loaded, and what it refuses then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine
from pipeline.core.errors import InputError
from pipeline.core.model_source import EMBEDDED
from tests.tiny_models import build_tiny_model


def recipe(directory: Path, **values: object) -> RecipeConfig:
    settings = {"model": ModelConfig(id=str(directory)), "width": 16, "height": 16, "num_inference_steps": 2, **values}
    return RecipeConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"negative_prompt": "a boot", "guidance_scale": 4}, "negative_prompt has no effect with this model"),
        ({"guidance_scale": [2, 4]}, "drawn per image, which does not go with this model"),
    ],
)
def test_a_model_with_its_guidance_built_in_refuses_what_it_would_not_read(
    settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    directory = build_tiny_model(tmp_path / "distilled", guidance_channels=8)
    DiffusionEngine(directory, recipe(directory), 1, "cpu").generate(["a bag"], [1])
    with pytest.raises(InputError, match=says):
        DiffusionEngine(directory, recipe(directory, **settings), 1, "cpu")


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
def test_another_scheduler_does_not_clip_latents(name: str) -> None:
    """The shipped generator's configuration does not speak of it, and both clip by default."""
    settings = {"num_inference_steps": 30, "guidance_scale": 1.0, "width": 32, "height": 32}
    (usual,) = DiffusionEngine(EMBEDDED, recipe(EMBEDDED, **settings), 1, "cpu").generate(["Bag, container"], [3])
    engine = DiffusionEngine(EMBEDDED, recipe(EMBEDDED, scheduler=name, **settings), 1, "cpu")
    assert engine.pipeline.scheduler.config.clip_sample is False
    if name == "DDIMScheduler":  # without noise of its own, so on the way of the usual one
        (other,) = engine.generate(["Bag, container"], [3])
        assert np.abs(other.pixels.astype(int) - usual.pixels).mean() < 5
