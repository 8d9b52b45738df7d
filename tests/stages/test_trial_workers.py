from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util import placement_group, placement_group_table

from pipeline.core.artifact import Store
from pipeline.core.lease import LeaseTiming, lease
from pipeline.stages.trial_workers import TrialWorkers, begin_trial, release_trial, start_trial_workers


@pytest.fixture
def keeper(ray_cluster: None) -> Iterator[Any]:
    actor = start_trial_workers(2)
    yield actor
    ray.kill(actor)


def group() -> Any:
    made = placement_group([{"CPU": 0.1}])
    assert made.wait(60)
    return made


def states(*groups: Any) -> list[str]:
    table = placement_group_table()
    return [table[one.id.hex()]["state"] for one in groups]


def settled(keeper: Any) -> None:
    """Calls of one process are answered in order."""
    ray.get(keeper.release.remote("nobody"))


def test_what_an_ended_trial_has_and_what_comes_too_late_is_given_back(keeper: Any) -> None:
    first, other, late = group(), group(), group()
    begin_trial("a")
    ray.get([keeper.keep.remote("a", first), keeper.keep.remote("b", other)])
    release_trial("a")
    settled(keeper)
    assert states(first, other) == ["REMOVED", "CREATED"]
    ray.get(keeper.keep.remote("a", late))
    assert states(late) == ["REMOVED"]
    begin_trial("b")  # another try: what the first left goes
    again = group()
    ray.get(keeper.keep.remote("b", again))
    assert states(other, again) == ["REMOVED", "CREATED"]
    ray.get(keeper.release.remote("b"))
    assert states(again) == ["REMOVED"]


def test_slots_go_to_who_came_first_and_a_dead_one_in_the_queue_takes_none() -> None:
    async def play() -> list[str]:
        workers, got = TrialWorkers(2), []

        async def ask(trial: str) -> None:
            workers.begin(trial)
            await workers.take_slot(trial)
            got.append(trial)

        asked = [asyncio.ensure_future(ask(trial)) for trial in "abcde"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert got == ["a", "b"]
        workers.release("c")  # its process died while it waited
        workers.release("a")
        await asyncio.sleep(0)
        assert got == ["a", "b", "d"] and workers.held_s() > 0
        workers.begin("b")  # starts again: it stands at the end of the queue
        await asyncio.sleep(0)
        for one in asked:
            one.cancel()
        return got

    assert asyncio.run(play()) == ["a", "b", "d", "e"]


def test_a_lease_that_a_stopped_trial_held_is_free_at_once(tmp_path: Path) -> None:
    store, workers = Store.open(str(tmp_path)), TrialWorkers(1)
    with lease(store, "x/lease", key="ab"):
        workers.keep_lease("a", store, "x/lease", "ab")
        workers.release("a")
        begun = time.monotonic()
        with lease(store, "x/lease", timing=LeaseTiming(ttl_s=1000)) as held:
            assert held and time.monotonic() - begun < 10


def test_the_keeper_starts_again_when_it_dies(keeper: Any) -> None:
    ray.kill(keeper, no_restart=False)
    again = begin_trial("a")
    ray.get(again.take_slot.remote("a"), timeout=60)
