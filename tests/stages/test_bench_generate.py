from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.stages import bench_generate, bench_writes
from pipeline.stages.bench_generate import RATIOS, compare
from pipeline.stages.bench_processes import run_bare_loop
from pipeline.stages.bench_sides import Measured, all_batches
from tests.image_sets import small_config


def stand_ins(monkeypatch: pytest.MonkeyPatch, rates: dict[str, list[float]]) -> list[str]:
    """Sides that answer with given rates; the list that they note their names in."""
    ran: list[str] = []

    def side(name: str) -> Callable[[RunConfig], Measured]:
        def run(_config: RunConfig) -> Measured:
            ran.append(name)
            return Measured(rates[name].pop(0), 1.0)

        return run

    monkeypatch.setattr(bench_generate, "ray_session", lambda _cpus: nullcontext())
    monkeypatch.setattr(bench_generate, "SIDES", {name: side(name) for name in rates})
    return ran


def test_sides_take_turns_and_each_ratio_is_of_one_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = stand_ins(monkeypatch, {"bare_loop": [10.0, 20.0, 40.0], "pipeline_call": [10.0, 10.0, 10.0]})
    told: list[dict[str, Any]] = []
    summary = compare(small_config(), 3, ["engine_over_pipeline_call"], told.append)
    assert ran == ["bare_loop", "pipeline_call", "pipeline_call", "bare_loop", "bare_loop", "pipeline_call"]
    assert summary["engine_over_pipeline_call"] == 2.0
    assert summary["spread"] == {"engine_over_pipeline_call": [1.0, 4.0]}
    assert [line["images_per_s"] for line in told] == [10.0, 10.0, 10.0, 20.0, 40.0, 10.0]


def test_every_ratio_is_of_two_sides_that_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(monkeypatch, {side: [2.0] for side in bench_generate.SIDES})
    monkeypatch.setattr(bench_writes, "WRITES", 2)
    told: list[dict[str, Any]] = []
    summary = compare(small_config(), 1, list(RATIOS), told.append)
    assert [summary[name] for name in RATIOS][:3] == [1.0, 1.0, 1.0]
    rates = {line["side"]: line["images_per_s"] for line in told}
    assert summary["parquet_over_bare_pyarrow"] == rates["shard_writes"] / rates["bare_pyarrow"] > 0


def test_the_batches_are_those_of_the_stage() -> None:
    config = load_config("fashion", overrides=["images_per_class=3", "generate.shard_size=8", "generate.batch_size=5"])
    shards = all_batches(config)
    assert [[len(prompts) for prompts, _ in shard] for shard in shards] == [[5, 3]] * 4
    seeds = [seed for shard in shards for _, batch in shard for seed in batch]
    assert len(set(seeds)) == 32


def test_a_model_that_cannot_be_loaded_ends_all_processes_with_the_reason() -> None:
    overrides = ["images_per_class=20", "recipe.scheduler=NoScheduler"]
    with pytest.raises(InputError, match="NoScheduler"):
        run_bare_loop(load_config("fashion", overrides=overrides))


def test_guidance_drawn_per_image_has_no_peer() -> None:
    config = load_config("fashion", overrides=["recipe.guidance_scale=[1, 2]"])
    with pytest.raises(InputError, match="one number"):
        compare(config, 1, list(RATIOS), print)
