import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.diffusion import DiffusionEngine, GeneratedImage
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.core.storage_probe import PROBE
from pipeline.stages.generate import generate
from pipeline.stages.preflight import _try_one_image
from pipeline.stages.prompts import ensure_prompt_table
from tests.tiny_models import spoil_decoder
from tests.tiny_sets import settings


def eager(model: Path, **recipe: Any) -> RunConfig:
    words = [f"recipe.{name}={value}" for name, value in recipe.items()]
    return load_config("fashion", overrides=[*settings(model), "generate.preflight=always", *words])


@pytest.mark.usefixtures("ray_cluster")
def test_a_sound_setup_is_tried_once_and_then_made(tiny_model: Path, tmp_root: str, capfd: pytest.CaptureFixture[str]):
    config, store = eager(tiny_model), Store.open(tmp_root)
    assert generate(config, store)["ok"] == 40
    assert "preflight: load " in capfd.readouterr().out
    assert store.exists(f"{resolve_recipe(config).images_dir}/{PROBE}")


@pytest.mark.usefixtures("ray_cluster")
def test_a_torn_model_is_found_before_any_shard(tiny_model: Path, tmp_path: Path, tmp_root: str):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    store = Store.open(tmp_root)
    with pytest.raises((InputError, WorkError), match=r"broken.*preflight; no pool was started"):
        generate(eager(broken), store)


@pytest.mark.usefixtures("ray_cluster")
def test_a_model_that_cannot_draw_is_found_before_any_shard(tiny_model: Path, tmp_path: Path, tmp_root: str):
    """The failure is real: this scheduler refuses more steps than it was trained with, once it is called."""
    model = shutil.copytree(tiny_model, tmp_path / "flaky")
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "num_train_timesteps": 1}))
    config, store = eager(model, scheduler="DDIMScheduler", num_inference_steps=2), Store.open(tmp_root)
    with pytest.raises(WorkError, match=r"first image cannot be made: ValueError.*no pool was started"):
        generate(config, store)
    assert not published_shards(store, resolve_recipe(config).images_dir)


def tried(config: RunConfig, root: str) -> dict[str, float]:
    """What the worker does, in this process."""
    store, recipe = Store.open(root), resolve_recipe(config)
    return _try_one_image(config, recipe, store, ensure_prompt_table(config, recipe, store)["parts"], lambda *_: None)


def test_a_model_whose_numbers_overflow_is_no_model(tiny_model: Path, tmp_path: Path, tmp_root: str):
    model = spoil_decoder(shutil.copytree(tiny_model, tmp_path / "overflowing"))
    with pytest.raises(WorkError, match=r"first image cannot be made: FloatingPointError: .* NaN .* check the weights"):
        tried(eager(model), tmp_root)


@pytest.mark.parametrize(("blank", "is_refused"), [(5, True), (1, False)])
def test_a_first_batch_of_blank_images_is_refused_and_one_alone_is_not(
    tiny_model: Path, tmp_root: str, monkeypatch: pytest.MonkeyPatch, blank: int, is_refused: bool
):
    generate_images = DiffusionEngine.generate

    def partly_black(engine: DiffusionEngine, *columns: Any) -> list[GeneratedImage]:
        made = generate_images(engine, *columns)
        black = GeneratedImage(np.zeros_like(made[0].pixels), is_nsfw=False)
        return [black] * blank + made[blank:]

    monkeypatch.setattr(DiffusionEngine, "generate", partly_black)
    refused = pytest.raises(WorkError, match=r"all 5 images of the first batch are blank .*generate.preflight=auto")
    with refused if is_refused else nullcontext():
        assert tried(eager(tiny_model), tmp_root).keys() == {"load", "image", "write"}
