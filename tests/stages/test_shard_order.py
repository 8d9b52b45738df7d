"""Drivers that are at work on one set share it, whoever began first."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.image_set import claim_image_set, published_shards
from pipeline.core.lease import LeaseTiming
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.bench_null import NullMakers
from pipeline.stages.prompts import tracked_prompt_table
from pipeline.stages.pulse import start_pulse
from pipeline.stages.shard_order import EXTRA, shard_order
from pipeline.stages.shard_pool import finished_shards
from tests.tiny_sets import tiny_config

SHARDS = range(40)


def test_the_first_goes_in_order_and_every_other_one_has_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(str(tmp_path))
    with (
        shard_order(store, "set", [2, *SHARDS[3:], 0, 1]) as first,
        shard_order(store, "set", SHARDS) as second,
        shard_order(store, "set", SHARDS) as third,
    ):
        assert first == list(SHARDS)
        assert sorted(second) == sorted(third) == first and len({*map(tuple, (first, second, third))}) == 3
    assert capsys.readouterr().out.count("another command is at work on this set") == 2
    with shard_order(store, "set", SHARDS) as again:
        assert again == list(SHARDS)


def test_parts_of_a_set_do_not_ask_for_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(str(tmp_path))
    with (
        shard_order(store, "set", range(20), "0-19") as first,
        shard_order(store, "set", range(20, 40), "20-39") as second,
        shard_order(store, "set", range(5), EXTRA) as extra,
    ):
        assert [*first, *second] == list(SHARDS) and extra == list(range(5))
    assert not capsys.readouterr().out


def test_a_ticket_that_was_left_on_another_machine_goes_in_time(tmp_path: Path) -> None:
    """Who is not first waits on while it works, and removes it; the next driver is the first one again."""
    store, timing = Store.open(str(tmp_path)), LeaseTiming(heartbeat_s=0.05, ttl_s=3, poll_s=0.02)
    store.write_json("set/first-all/ticket-000000000001-dead", {"host": "another", "pid": 1})
    with shard_order(store, "set", SHARDS, timing=timing) as order:
        assert order != list(SHARDS)
        deadline = time.monotonic() + 60
        while store.exists("set/first-all/ticket-000000000001-dead"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with shard_order(store, "set", SHARDS, timing=timing) as order:
        assert order == list(SHARDS)
    assert store.list_names("set/first-all") == []


def test_a_storage_that_lets_nobody_delete_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_store: Store, path: str, _patience_s: float | None = None) -> None:
        raise WorkError(f"cannot remove {path}")

    monkeypatch.setattr(Store, "delete", refused)
    with shard_order(Store.open(str(tmp_path)), "set", SHARDS) as order:
        assert order == list(SHARDS)


@pytest.mark.usefixtures("ray_cluster")
def test_two_at_once_make_few_shards_twice(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one order each is 0 to 1 shard behind the other all along, and both together make 73 (tried)."""
    monkeypatch.setattr("pipeline.stages.shard_order.random", random.Random(0))
    config, store = tiny_config(tiny_model, {"images_per_class": 40}), Store.open(str(tmp_path))
    recipe = resolve_recipe(config)
    parts = tracked_prompt_table(config, recipe, store)["parts"]
    claim_image_set(config, recipe, store)
    made: list[int] = []
    worker = {"replace": False, "make_maker": NullMakers(3_000, shard_s=0.3)}

    def drive(order: Sequence[int], pulse: object) -> None:
        with closing(finished_shards(config, recipe, store, parts, list(order), pulse, worker)) as summaries:
            made.extend(summary.shard for summary, is_new in summaries if is_new)

    with shard_order(store, recipe.images_dir, SHARDS) as one, shard_order(store, recipe.images_dir, SHARDS) as other:
        threads = [threading.Thread(target=drive, args=(order, start_pulse())) for order in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
    assert published_shards(store, recipe.images_dir) == set(made) == set(SHARDS)
    assert len(made) <= 50
