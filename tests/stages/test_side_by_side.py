"""Trainings at once: with a stand-in for `train`, in real Ray processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import ray
import ray.exceptions

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.stages import side_by_side
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from tests.image_sets import small_config

MEETING = (5, 6)
"""Seeds whose trainings wait for each other: they only meet when they run at the same time."""
MEETING_TIMEOUT_S = 60
SLOW = 20
"""The seed of a training that ends after others."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def seeds(*values: int) -> list[RunConfig]:
    return [small_config(seed=value) for value in values]


def fake_train(config: RunConfig, store: Store, parent_run: str | None = None) -> dict[str, object]:
    if config.train.seed == 13:
        raise WorkError("unlucky")
    if config.train.seed == 14:
        raise KeyError("a bug")
    if config.train.seed == 15:
        os._exit(1)
    if config.train.seed == SLOW:
        time.sleep(2)
    Path(store.root, str(config.train.seed)).touch()
    return {"seed": config.train.seed, "pid": os.getpid(), "met": config.train.seed in MEETING and meet(store)}


def meet(store: Store) -> bool:
    """Wait until every one of `MEETING` has begun."""
    deadline = time.monotonic() + MEETING_TIMEOUT_S
    while not all(Path(store.root, str(seed)).exists() for seed in MEETING):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> None:
    monkeypatch.setattr(side_by_side, "train", fake_train)


def test_results_come_with_their_position_and_the_trainings_run_at_the_same_time(stand_in: None, store: Store) -> None:
    found = dict(train_side_by_side(seeds(5, 6, 7), store, slots=2))
    assert {position: result["seed"] for position, result in found.items()} == {0: 5, 1: 6, 2: 7}
    assert all(result["pid"] != os.getpid() for result in found.values())
    assert found[0]["met"] and found[1]["met"]


@pytest.mark.parametrize("slots", [1, 2])
def test_what_a_training_needs_is_made_when_its_turn_comes(stand_in: None, store: Store, slots: int) -> None:
    """Not before the first ones; and the next ones start before the caller looks at one that has ended."""
    begun: list[int] = []
    results = train_side_by_side(seeds(7, 8, 9, 10), store, slots, prepare=begun.append)
    next(results)
    assert begun == list(range(1 if slots == 1 else 3))
    assert len(list(results)) == 3 and begun == [0, 1, 2, 3]


def test_what_cannot_be_prepared_lets_the_others_end(stand_in: None, store: Store) -> None:
    def prepare(position: int) -> None:
        if position == 2:
            raise InputError("no such model")

    results = train_side_by_side(seeds(7, 8, 9, 10), store, slots=2, prepare=prepare)
    assert {next(results)[0], next(results)[0]} == {0, 1}
    with pytest.raises(InputError, match="no such model"):
        next(results)
    assert not (Path(store.root) / "10").exists()


def test_one_slot_needs_no_other_process(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.setattr(side_by_side, "train", fake_train)
    found = dict(train_side_by_side(seeds(7, 8), store, slots=1))
    assert [result["pid"] for result in found.values()] == [os.getpid()] * 2


@pytest.mark.parametrize(("bad_seed", "error", "says"), [(13, WorkError, "unlucky"), (15, WorkError, "run the same")])
def test_a_failure_lets_the_others_end_and_starts_no_more(
    stand_in, store: Store, bad_seed: int, error: type, says: str
) -> None:
    results = train_side_by_side(seeds(7, bad_seed, 8, 9), store, slots=2)
    assert next(results)[0] == 0
    with pytest.raises(error, match=says):
        list(results)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        (ray.exceptions.NodeDiedError("node x"), r"^the node that a training's process ran on was lost; run the same"),
        (ray.exceptions.OutOfMemoryError("a page\nof text"), r"ran out of memory; .*--slots.* then run the same"),
        (ray.exceptions.LocalRayletDiedError(), r"^the process of a training died \([^\n]*\); run the same"),
    ],
)
def test_a_process_that_ray_lost_lets_the_others_end(
    stand_in: None, store: Store, monkeypatch: pytest.MonkeyPatch, lost: Exception, says: str
) -> None:
    get = ray.get

    def get_or_lose(reference: object) -> dict[str, object]:
        result: dict[str, object] = get(reference)
        if result["seed"] == 8:
            raise lost
        return result

    monkeypatch.setattr(ray, "get", get_or_lose)
    results = train_side_by_side(seeds(8, SLOW), store, slots=2)
    assert next(results)[1]["seed"] == SLOW
    with pytest.raises(WorkError, match=says):
        next(results)


def test_a_training_is_driven_on_the_drivers_own_node(
    stand_in: None, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    remote = ray.remote

    def note(**options: object) -> object:
        asked.update(options)
        return remote(**options)

    monkeypatch.setattr(ray, "remote", note)
    list(train_side_by_side(seeds(7, 8), store, slots=2))
    where = asked["scheduling_strategy"]
    assert where.node_id == ray.get_runtime_context().get_node_id() and where.soft


def test_a_bug_keeps_its_traceback(stand_in: None, store: Store) -> None:
    with pytest.raises(KeyError):
        list(train_side_by_side(seeds(14, 7), store, slots=2))


def test_an_input_error_stays_one(monkeypatch: pytest.MonkeyPatch, ray_cluster: None, tmp_path) -> None:
    with pytest.raises(InputError, match=r"jobs\.generate"):  # the real train, without an image set
        list(train_side_by_side(seeds(0, 1), Store(str(tmp_path)), slots=2))


@pytest.mark.parametrize(("cpus", "workers", "slots"), [(2, 1, 2), (2, 2, 1), (4, 2, 2), (1, 2, 1), (8, 3, 2)])
def test_slots_are_what_the_cpus_of_this_process_hold(monkeypatch, cpus: int, workers: int, slots: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert num_slots(small_config(num_workers=workers, batch_size=24).train) == slots


@pytest.mark.parametrize(("gpus", "slots"), [(8, 4), (3, 1), (0, 1)])
def test_slots_of_a_cluster_are_what_its_gpus_hold_too(monkeypatch: pytest.MonkeyPatch, gpus: int, slots: int) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 192.0, **({"GPU": float(gpus)} if gpus else {})})
    settings = small_config(num_workers=2, batch_size=24, device="cuda").train
    assert num_slots(settings) == slots
