"""Trainings at once: with a stand-in for `train`, in real Ray processes."""

from __future__ import annotations

import os
import time

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.stages import side_by_side
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from tests.image_sets import small_config

STORE = Store("/nowhere")


def seeds(*values: int) -> list[RunConfig]:
    return [small_config(seed=value) for value in values]


def fake_train(config: RunConfig, store: Store) -> dict[str, object]:
    start = time.time()
    if config.train.seed == 13:
        raise WorkError("unlucky")
    if config.train.seed == 14:
        raise KeyError("a bug")
    if config.train.seed == 15:
        os._exit(1)
    time.sleep(1)
    return {"seed": config.train.seed, "pid": os.getpid(), "start": start, "end": time.time()}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, ray_cluster: None) -> None:
    monkeypatch.setattr(side_by_side, "train", fake_train)


def test_results_come_with_their_position_and_overlap_in_time(stand_in: None) -> None:
    found = dict(train_side_by_side(seeds(5, 6, 7), STORE, slots=2))
    assert {position: result["seed"] for position, result in found.items()} == {0: 5, 1: 6, 2: 7}
    assert all(result["pid"] != os.getpid() for result in found.values())
    running = [sum(r["start"] <= result["start"] < r["end"] for r in found.values()) for result in found.values()]
    assert max(running) == 2


def test_one_slot_needs_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "train", fake_train)
    found = dict(train_side_by_side(seeds(5, 6), STORE, slots=1))
    assert [result["pid"] for result in found.values()] == [os.getpid()] * 2


@pytest.mark.parametrize(("bad_seed", "error", "says"), [(13, WorkError, "unlucky"), (15, WorkError, "run the same")])
def test_a_failure_lets_the_others_end_and_starts_no_more(stand_in, bad_seed: int, error: type, says: str) -> None:
    results = train_side_by_side(seeds(5, bad_seed, 7, 8), STORE, slots=2)
    assert next(results)[0] == 0
    with pytest.raises(error, match=says):
        list(results)


def test_a_bug_keeps_its_traceback(stand_in: None) -> None:
    with pytest.raises(KeyError):
        list(train_side_by_side(seeds(14, 5), STORE, slots=2))


def test_an_input_error_stays_one(monkeypatch: pytest.MonkeyPatch, ray_cluster: None, tmp_path) -> None:
    with pytest.raises(InputError, match=r"jobs\.generate"):  # the real train, without an image set
        list(train_side_by_side(seeds(0, 1), Store(str(tmp_path)), slots=2))


@pytest.mark.parametrize(("cpus", "workers", "slots"), [(2, 1, 2), (2, 2, 1), (4, 2, 2), (1, 2, 1), (8, 3, 2)])
def test_slots_are_what_the_cpus_of_this_process_hold(monkeypatch, cpus: int, workers: int, slots: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    assert num_slots(small_config(num_workers=workers, batch_size=24).train) == slots
