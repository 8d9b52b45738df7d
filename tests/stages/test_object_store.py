"""The chain on a real S3 server: every stage writes, lists and reads there what it does on a disk."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import shard_path
from pipeline.stages.generate import generate
from pipeline.stages.runtime import ray_session
from pipeline.stages.train import train
from pipeline.stages.verify import verify
from tests.tiny_sets import tiny_config


@pytest.fixture(scope="module")
def ray_on_s3(s3_root: str, ray_sessions: ExitStack) -> Iterator[None]:
    """A Ray of its own: workers inherit the environment that Ray was started in, so the server must be there first."""
    ray_sessions.close()  # another file's session, started without the server's address
    with ray_session(num_cpus=4):
        yield


def small_training(config: RunConfig) -> RunConfig:
    settings = {"input_size": 32, "batch_size": 8, "epochs": 1, "warmup_epochs": 0, "num_workers": 1}
    return config.model_copy(update={"train": config.train.model_copy(update=settings)})


@pytest.mark.timeout(600)
def test_a_set_is_made_verified_repaired_and_trained_on(ray_on_s3: None, s3_root: str, tiny_model: Path) -> None:
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
