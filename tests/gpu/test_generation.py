"""The engine and the stage on a GPU: same bits where they are promised, small differences where they are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.config import EngineConfig
from pipeline.core.diffusion import DiffusionEngine
from pipeline.core.errors import WorkError
from pipeline.core.recipe import resolve_recipe
from pipeline.core.regeneration import compare
from pipeline.stages.generate import generate
from pipeline.stages.runtime import ray_session
from pipeline.stages.verify import verify
from tests.core.test_diffusion import check_padding, pixels, recipe, reference
from tests.core.test_engine_options import check_the_decoders_attention, images
from tests.core.test_regeneration import published_maker
from tests.tiny_sets import tiny_config

pytestmark = pytest.mark.gpu

GPU = {"generate.device": "cuda", "generate.num_gpus_per_actor": 1}
FEW_LEVELS = 3
"""Of 255: what other kernels may change in a pixel of the tiny model."""


def furthest(ours: list[np.ndarray] | np.ndarray, theirs: list[np.ndarray] | np.ndarray) -> int:
    return int(np.abs(np.stack(list(ours)).astype(int) - np.stack(list(theirs))).max())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_padded_batch_gives_the_bits_of_a_full_one(tiny_model: Path, count: int, dtype: str) -> None:
    check_padding(tiny_model, "cuda", count, dtype)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_sizes_and_the_cpu_are_a_few_levels_apart(tiny_model: Path, batch_size: int) -> None:
    engine = DiffusionEngine(tiny_model, recipe(tiny_model), batch_size, "cuda")
    on_cpu = reference(tiny_model, recipe(tiny_model), batch_size)
    assert furthest(pixels(engine, batch_size), on_cpu) <= FEW_LEVELS


@pytest.mark.parametrize(
    "options",
    [
        *(EngineConfig(attention=name) for name in ("math", "flash", "efficient", "cudnn")),
        EngineConfig(channels_last=True),
        EngineConfig(fuse_qkv=True),
        EngineConfig(compile=True),
    ],
    ids=str,
)
def test_no_option_makes_another_image(tiny_model: Path, options: EngineConfig) -> None:
    plain = images(tiny_model, EngineConfig(), "cuda", dtype="float16")
    assert furthest(images(tiny_model, options, "cuda", dtype="float16"), plain) <= FEW_LEVELS


@pytest.mark.parametrize("name", ["math", "flash", "efficient", "cudnn"])
def test_the_decoders_attention_is_done_by_another_kernel_where_it_must(name: str) -> None:
    check_the_decoders_attention(name, "cuda", torch.float16)


def test_images_made_again_are_bit_equal(tiny_model: Path, tmp_path: Path) -> None:
    maker = published_maker(tiny_model, tmp_path / "runs", GPU)
    found = compare(maker, maker._store, resolve_recipe(maker._config), 0, [0, 4, 9])
    assert all(each.is_equal and each.differs == {} for each in found)
    assert {"cuda", "cudnn", "driver"} <= maker.environment.keys()


def test_memory_that_is_too_small_is_one_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    large = {**GPU, "recipe.width": 512, "recipe.height": 512, "generate.batch_size": 10}
    maker = published_maker(tiny_model, tmp_path / "runs", large)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (4 << 20)) / total)
    try:
        with pytest.raises(WorkError, match=r"the device of this worker failed \(.*CUDA out of memory"):
            maker.make(1)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_set_is_made_and_verified(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    config = tiny_config(tiny_model, {**GPU, "recipe.dtype": dtype, "generate.shards_in_flight": 2})
    store = Store.open(str(tmp_path / "runs"))
    with ray_session(num_cpus=4):
        made = generate(config, store)
        found = verify(config, store, print)
    assert (made["rows"], made["ok"], found["bad"], found["missing"]) == (40, 40, {}, [])
