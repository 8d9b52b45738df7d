from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.core.config import EngineConfig, ModelConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine
from pipeline.core.engine_options import Memo, attention, denoiser_of, remembering
from pipeline.core.errors import InputError

STEPS = 3


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return value * 2


def images(directory: Path, options: EngineConfig, device: str = "cpu", **recipe: object) -> np.ndarray:
    values = {"model": ModelConfig(id=str(directory)), "width": 16, "height": 16, "num_inference_steps": STEPS}
    engine = DiffusionEngine(directory, RecipeConfig(**{**values, **recipe}), 3, device, options)
    return np.stack([image.pixels for image in engine.generate(["a bag", "a coat", "a bag"], [1, 2, 3])])


def test_a_layer_is_asked_once_for_the_same_tensor_and_again_for_another():
    layer = Counting()
    memo, text = Memo(layer), torch.ones(2)
    with remembering([memo]):
        results = [memo(text), memo(text), memo(text.clone()), memo(text)]
    assert layer.calls == 3
    assert all(torch.equal(result, text * 2) for result in results)


def test_nothing_is_remembered_outside_of_a_call():
    layer = Counting()
    memo, text = Memo(layer), torch.ones(2)
    with remembering([memo]):
        memo(text)
    memo(text)
    memo(text)
    assert layer.calls == 3


def test_the_text_is_projected_once_per_call_and_not_once_per_step(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = RecipeConfig(model=ModelConfig(id=str(tiny_model)), width=16, height=16, num_inference_steps=STEPS)
    engine = DiffusionEngine(tiny_model, recipe, 2, "cpu")
    memos = [module for module in denoiser_of(engine.pipeline).modules() if isinstance(module, Memo)]
    assert memos
    counters = [Counting() for _ in memos]
    for memo, counter in zip(memos, counters, strict=True):
        counter.register_module("real", memo.layer)
        monkeypatch.setattr(memo, "layer", counter)
        monkeypatch.setattr(counter, "forward", lambda x, c=counter: (setattr(c, "calls", c.calls + 1), c.real(x))[1])
    for _ in range(2):
        engine.generate(["a bag", "a coat"], [1, 2])
    assert {counter.calls for counter in counters} == {2}


@pytest.mark.parametrize(
    "options",
    [
        EngineConfig(channels_last=True),
        EngineConfig(fuse_qkv=True),
        EngineConfig(attention="math"),
        EngineConfig(channels_last=True, fuse_qkv=True, attention="flash"),
        pytest.param(EngineConfig(compile=True), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_no_option_makes_another_image(tiny_model: Path, options: EngineConfig):
    difference = images(tiny_model, options).astype(int) - images(tiny_model, EngineConfig())
    assert np.abs(difference).max() <= 1


def check_the_decoders_attention(name: str, device: str, dtype: torch.dtype) -> None:
    """One head of 512 channels, which flash and cudnn cannot do; tests/gpu asks this of a GPU."""
    heads = torch.randn(3, 1, 1, 64, 512, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    with attention(EngineConfig(attention=name)):
        found = F.scaled_dot_product_attention(*heads)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(*heads), atol=0.01, rtol=0.01)


@pytest.mark.parametrize("name", ["math", "flash", "efficient", "cudnn"])
def test_a_layer_that_the_wanted_kernel_cannot_do_takes_another(name: str):
    """On a CPU cudnn and efficient can do none."""
    check_the_decoders_attention(name, "cpu", torch.float32)


def test_a_kernel_that_can_do_nothing_here_is_an_input_error(tiny_model: Path):
    with pytest.raises(InputError, match=r"engine.attention=cudnn is not there for float32 on cpu .*; give default"):
        images(tiny_model, EngineConfig(attention="cudnn"))


def test_a_pipeline_that_cannot_fuse_is_told_so(tiny_model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr("diffusers.pipelines.pipeline_utils.StableDiffusionMixin.fuse_qkv_projections")
    with pytest.raises(InputError, match=r"generate.engine.fuse_qkv: StableDiffusionPipeline cannot fuse"):
        images(tiny_model, EngineConfig(fuse_qkv=True))
