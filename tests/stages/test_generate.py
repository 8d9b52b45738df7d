import json
import shutil
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import shard_path
from pipeline.core.recipe import resolve_recipe
from pipeline.core.shard_maker import ShardMaker
from pipeline.stages.generate import generate
from pipeline.stages.prompts import ensure_prompt_table

pytestmark = pytest.mark.usefixtures("ray_cluster")


def config_of(model: Path, **values: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "images_per_class": 4,
            "recipe": {"model": {"id": str(model)}, "width": 16, "height": 16, "num_inference_steps": 1},
            "generate": {"shard_size": 10, "batch_size": 4},
            "tracking": {"enabled": False},
            **values,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "runs"))


def modified(store: Store, summary: dict[str, object]) -> dict[int, int]:
    """When each shard was written, nanoseconds."""
    paths = {k: Path(store.uri(shard_path(str(summary["images_dir"]), k))) for k in range(int(str(summary["shards"])))}
    return {shard: path.stat().st_mtime_ns for shard, path in paths.items() if path.exists()}


def test_a_set_is_made_resumed_and_extended_without_touching_a_shard(tiny_model: Path, store: Store):
    first = generate(config_of(tiny_model), store)
    assert (first["rows"], first["ok"], first["images_made"], first["shards"]) == (40, 40, 40, 4)

    before = modified(store, first)
    Path(store.uri(shard_path(first["images_dir"], 2))).unlink()
    again = generate(config_of(tiny_model), store)
    after = modified(store, again)
    assert again["set_sha256"] == first["set_sha256"] and again["images_made"] == 10
    assert {k for k in after if after[k] != before[k]} == {2}

    larger = generate(config_of(tiny_model, images_per_class=7), store)
    assert (larger["rows"], larger["images_made"]) == (70, 30)
    assert {k: v for k, v in modified(store, larger).items() if k < 4} == after

    smaller = generate(config_of(tiny_model), store)  # a smaller request leaves the larger set as it is
    assert (smaller["rows"], smaller["images_made"]) == (70, 0)


def test_another_recipe_goes_to_another_directory(tiny_model: Path, store: Store):
    one = generate(config_of(tiny_model), store)
    two = generate(
        config_of(
            tiny_model,
            recipe={"model": {"id": str(tiny_model)}, "width": 16, "height": 16, "num_inference_steps": 2},
        ),
        store,
    )
    assert one["images_dir"] != two["images_dir"] and one["set_sha256"] != two["set_sha256"]


def test_a_model_that_breaks_on_the_worker_is_one_clear_error(tiny_model: Path, store: Store, tmp_path: Path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises((InputError, WorkError), match="broken"):
        generate(config_of(broken), store)


def test_too_many_failed_rows_end_the_job_with_their_reasons(tiny_model: Path, store: Store, tmp_path: Path):
    """The failure is real: this scheduler refuses more steps than it was trained with, once it is called."""
    model = shutil.copytree(tiny_model, tmp_path / "flaky")
    settings = model / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "num_train_timesteps": 1}))
    recipe = {
        "model": {"id": str(model)},
        "width": 16,
        "height": 16,
        "num_inference_steps": 2,
        "scheduler": "DDIMScheduler",
    }
    with pytest.raises(WorkError, match=r"10 of 40 images .*max_failed_fraction=0.01 .*ValueError.*--retry-failed"):
        generate(config_of(model, recipe=recipe, generate={"shard_size": 10, "num_actors": 1}), store)


def test_retry_makes_the_shards_with_failed_rows_again(tiny_model: Path, store: Store, monkeypatch: pytest.MonkeyPatch):
    config = config_of(tiny_model)
    good = generate(config, store)
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir)
    with monkeypatch.context() as patch:
        patch.setattr(maker.engine, "generate", lambda prompts, seeds: 1 / 0)
        maker.make(1)
    with pytest.raises(WorkError, match="10 of 40 images"):
        generate(config, store)
    mended = generate(config, store, retry_failed=True)
    assert (mended["images_made"], mended["ok"], mended["set_sha256"]) == (10, 40, good["set_sha256"])
