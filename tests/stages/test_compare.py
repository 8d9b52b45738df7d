"""Comparing real networks with random weights on real test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.stages.compare import compare


@pytest.fixture
def config(noise_folder: Path) -> RunConfig:
    return RunConfig.model_validate({"evaluate": {"test_set": str(noise_folder), "torch_threads": 1}})


def test_a_model_does_not_differ_from_itself_and_another_does(config: RunConfig, store: Store, save_model) -> None:
    one, other = (save_model(store, "synthetic", seed) for seed in (0, 1))
    found = compare(config, store, [[one], [one], [other]])
    same, apart = found["pairs"]
    assert (same["difference"], same["interval"], same["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert apart["difference"] == pytest.approx(apart["top1"][1] - apart["top1"][0])
    assert found["test_set"]["images"] == 30 and len(apart["classes"]) == 10
    kept = store.read_json(f"{found['directory']}/comparison.json")
    assert kept["pairs"] == found["pairs"]
    assert found["text"] == store.read_bytes(f"{found['directory']}/comparison.md").decode()


def test_seeds_of_a_setting_are_averaged(config: RunConfig, store: Store, save_model) -> None:
    paths = [save_model(store, "synthetic", seed) for seed in (0, 1, 2)]
    (pair,) = compare(config, store, [paths[:2], paths[2:]])["pairs"]
    alone = [compare(config, store, [[path], paths[2:]])["pairs"][0]["top1"][0] for path in paths[:2]]
    assert pair["top1"][0] == pytest.approx(np.mean(alone)) and pair["p_value"] is None


def test_a_model_of_other_classes_is_refused_and_nothing_is_written(config: RunConfig, store: Store, save_model):
    one, other = (save_model(store, "synthetic", seed) for seed in (0, 1))
    settings = store.read_json(f"{other}/config.json")
    store.write_json(f"{other}/config.json", {**settings, "wnids": settings["wnids"][::-1]})
    with pytest.raises(InputError, match="knows other classes"):
        compare(config, store, [[one], [other]])
    assert not store.exists("comparisons")


def test_on_a_cluster_a_gpu_s_work_leaves_the_driver(
    config: RunConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr("pipeline.stages.compare.on_a_gpu_node", lambda function, device, *_: {function: device})
    settings = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"device": "cuda"})})
    assert compare(settings, store, [["a"], ["b"]]) == {compare: "evaluate.device"}
