"""The chain on a real S3 server: every stage writes, lists and reads there what it does on a disk."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

import pytest

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import OutageError, WorkError
from pipeline.core.filesystems import open_filesystem
from pipeline.core.image_set import shard_path
from pipeline.core.recipe import resolve_recipe
from pipeline.core.storage_probe import check_storage
from pipeline.stages.generate import generate
from pipeline.stages.preflight import _try_one_image
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.train import train
from pipeline.stages.verify import verify
from tests.s3_server import READER_KEY
from tests.tiny_sets import tiny_config


def small_training(config: RunConfig) -> RunConfig:
    settings = {"input_size": 32, "batch_size": 8, "epochs": 1, "warmup_epochs": 0, "num_workers": 1}
    return config.model_copy(update={"train": config.train.model_copy(update=settings)})


@pytest.mark.timeout(900)
def test_a_set_is_made_verified_repaired_and_trained_on(ray_cluster: None, s3_root: str, tiny_model: Path) -> None:
    config = small_training(tiny_config(tiny_model))
    store = Store.open(f"{s3_root}/{uuid.uuid4().hex}")
    made = generate(config, store)
    assert (made["rows"], made["ok"], made["images_made"]) == (40, 40, 40)

    store.write_bytes(shard_path(made["images_dir"], 1), store.read_bytes(shard_path(made["images_dir"], 1))[:-9])
    store.delete(shard_path(made["images_dir"], 3))
    found = verify(config, store, lambda _: None, repair=True)
    assert (list(found["bad"]), found["missing"], found["repaired"]) == (["1"], [3], [1, 3])
    assert generate(config, store)["set_sha256"] == made["set_sha256"]

    model = train(config, store)
    names = store.list_names(model["model_dir"])
    assert names == ["config.json", MANIFEST, "metrics.jsonl", "model.safetensors"]
    assert model["data"]["set_sha256"] == made["set_sha256"]


def test_a_worker_whose_key_only_reads_is_found_by_the_preflight(
    s3_root: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the preflight runs on the worker, in this process: the driver's key may write, the worker's may not."""
    config, store = tiny_config(tiny_model), Store.open(f"{s3_root}/{uuid.uuid4().hex}")
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    open_filesystem.cache_clear()
    try:
        with pytest.raises(
            WorkError, match=r"cannot write s3://.*preflight.json: .*ACCESS_DENIED.*mend the permission"
        ):
            _try_one_image(config, recipe, store, parts, lambda *_, **__: None)
    finally:
        open_filesystem.cache_clear()


def test_a_storage_that_does_not_answer_is_not_waited_for_before_a_run(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.core.storage_probe.CHECK_PATIENCE_S", 0.5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    open_filesystem.cache_clear()
    began = time.monotonic()
    try:
        with pytest.raises(OutageError, match="cannot write"):
            check_storage(Store(f"{s3_root}/x"), "images/0")
    finally:
        open_filesystem.cache_clear()
    assert time.monotonic() - began < 60
