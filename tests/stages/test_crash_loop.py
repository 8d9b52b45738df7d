"""Actors that die again and again: Ray starts them without an end, so the job must find it and say so."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray.data

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, WorkerBrokenError, WorkError
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.core.stall import CrashClock
from pipeline.stages import pool_watch as module
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


@dataclass(frozen=True)
class FlakyMakers:
    """Two makers of ready images. One cannot start at first, one loses its device once; `notes` tells what was."""

    notes: Path

    def __call__(self, *arguments: Any) -> NullShardMaker:
        if not once(self.notes / "an actor loads"):
            while not list(self.notes.glob("shard-*")):
                time.sleep(0.05)
            if once(self.notes / "the late one"):
                raise InputError("no driver on this node")
        return noting(FlakyShardMaker, self.notes, arguments)


class FlakyShardMaker(NullShardMaker):
    notes: Path
    has_made = False
    """The actor that could not start may not be the broken one before it has finished a shard: that is a crash loop."""

    def make(self, shard: int) -> Any:
        if self.has_made and once(self.notes / "the broken one"):
            raise WorkerBrokenError("the device of this worker failed")
        summary = super().make(shard)
        self.has_made = True
        self._on_batch("batch", summary.rows)
        once(self.notes / f"shard-{shard}")
        return summary


@dataclass(frozen=True)
class HangingMakers:
    """Makers of ready images; one of them hangs, once."""

    notes: Path

    def __call__(self, *arguments: Any) -> NullShardMaker:
        return noting(HangingShardMaker, self.notes, arguments)


class HangingShardMaker(NullShardMaker):
    notes: Path

    def make(self, shard: int) -> Any:
        if once(self.notes / "hangs"):
            time.sleep(1000)
        return super().make(shard)


def noting(kind: Any, notes: Path, arguments: Sequence[Any]) -> NullShardMaker:
    """A maker of half a second for a shard that takes notes."""
    maker = kind(*arguments)
    maker.settings = NullMakers(3_000, shard_s=0.5)
    maker.notes = notes
    return maker


def once(note: Path) -> bool:
    """Whether this process is the first one to write a note."""
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


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
    # Words that are on their way when the process dies are lost: the last ones heard may be of the shard before.
    with pytest.raises(WorkError, match=r"last said: making shard \d in process \d+ on .*what is published is kept"):
        generate(config, store, make_maker=DyingMakers(1))
    assert 0 in published_shards(store, resolve_recipe(config).images_dir)


def test_shards_may_take_longer_than_ray_data_would_wait(
    tiny_model: Path, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S=1 in the environment, which Ray Data reads when imported."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1.0)
    config = tiny_config(tiny_model, {"images_per_class": 1})
    assert generate(config, Store.open(tmp_root), make_maker=NullMakers(3_000, shard_s=4))["ok"] == 10


def test_a_bad_node_and_a_lost_device_cost_no_image(tiny_model: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_model, {"images_per_class": 8, "generate.num_actors": 2})
    undisturbed = generate(config, Store.open(str(tmp_path / "undisturbed")), make_maker=NullMakers(3_000))
    (tmp_path / "notes").mkdir()
    found = generate(config, Store.open(str(tmp_path / "runs")), make_maker=FlakyMakers(tmp_path / "notes"))
    assert {"the late one", "the broken one"} <= {path.name for path in (tmp_path / "notes").iterdir()}
    assert (found["ok"], found["set_sha256"]) == (80, undisturbed["set_sha256"])


def test_a_device_that_fails_before_any_image_is_an_error_at_once(tiny_model: Path, tmp_root: str) -> None:
    with pytest.raises(WorkError, match="^the device of this worker failed"):
        generate(tiny_config(tiny_model), Store.open(tmp_root), make_maker=BrokenMakers())


class BrokenMakers:
    """Their device fails with every shard."""

    def __call__(self, *arguments: Any) -> NullShardMaker:
        return BrokenShardMaker(*arguments)


class BrokenShardMaker(NullShardMaker):
    def make(self, shard: int) -> Any:
        raise WorkerBrokenError("the device of this worker failed")


def test_one_that_hangs_is_named_and_ended_by_hand_its_shard_is_made_anew(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def read_and_end(line: str, **_: object) -> None:
        found = re.search(r"an actor has said nothing for \d+ s .* making shard \d+ in process (\d+) on (\S+);", line)
        if found and not ended:  # it may be said again before the next process has started
            os.kill(int(found[1]), signal.SIGKILL)
            ended.append(found[2])

    monkeypatch.setattr(module, "print", read_and_end, raising=False)
    changes = {"images_per_class": 20, "generate.num_actors": 2, "generate.stall_timeout_s": 20}
    (tmp_path / "notes").mkdir()
    found = generate(
        tiny_config(tiny_model, changes),
        Store.open(str(tmp_path / "runs")),
        make_maker=HangingMakers(tmp_path / "notes"),
    )
    assert (found["ok"], ended) == (200, [socket.gethostname()])
