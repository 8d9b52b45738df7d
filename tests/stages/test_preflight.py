import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.core.storage_probe import PROBE
from pipeline.stages.generate import generate
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
