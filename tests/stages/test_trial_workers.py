from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray.util import placement_group, placement_group_table

from pipeline.stages.trial_workers import begin_trial, release_trial, start_trial_workers


@pytest.fixture
def keeper(ray_cluster: None) -> Iterator[Any]:
    actor = start_trial_workers()
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
