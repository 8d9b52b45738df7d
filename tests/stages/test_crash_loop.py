"""Actors that die again and again: Ray starts them without an end, so the job must find it and say so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.data

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.core.stall import CrashClock
from pipeline.stages import pulse as module
from pipeline.stages.bench_null import NullMakers, NullShardMaker
from pipeline.stages.generate import generate
from tests.tiny_sets import tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


@dataclass(frozen=True)
class DyingMakers:
    """Makers of ready images whose process ends at the load, or with one shard."""

    shard: int | None = None

    def __call__(self, *arguments: Any) -> NullShardMaker:
        if self.shard is None:
            os._exit(1)
        maker = DyingShardMaker(*arguments)
        maker.settings = NullMakers(3_000)
        maker.deadly = self.shard
        return maker


class DyingShardMaker(NullShardMaker):
    deadly: int

    def make(self, shard: int) -> Any:
        if shard == self.deadly:
            os._exit(1)
        return super().make(shard)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few starts are enough."""
    monkeypatch.setattr(module, "POLL_S", 0.2)
    monkeypatch.setattr(module, "CrashClock", partial(CrashClock, 2, 3))


def test_actors_that_die_at_the_load_end_the_job(
    tiny_model: Path, tmp_root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WorkError, match=r"started \d times and has not finished a shard.*last said: starting"):
        generate(tiny_config(tiny_model), Store.open(tmp_root), make_maker=DyingMakers())
    assert "generate: an actor was started 2 times and has not finished a shard" in capfd.readouterr().out


def test_a_shard_that_kills_its_process_is_named_and_the_others_are_kept(tiny_model: Path, tmp_root: str) -> None:
    config, store = tiny_config(tiny_model), Store.open(tmp_root)
    with pytest.raises(WorkError, match="last said: making shard 1; .*what is published is kept"):
        generate(config, store, make_maker=DyingMakers(1))
    assert 0 in published_shards(store, resolve_recipe(config).images_dir)


def test_shards_may_take_longer_than_ray_data_would_wait(
    tiny_model: Path, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S=1 in the environment, which Ray Data reads when imported."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1.0)
    config = tiny_config(tiny_model, {"images_per_class": 1})
    assert generate(config, Store.open(tmp_root), make_maker=NullMakers(3_000, shard_s=4))["ok"] == 10
