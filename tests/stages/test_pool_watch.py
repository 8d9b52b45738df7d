"""Rows of a pool on real Ray, watched: what comes through, what a pool that cannot start is told, how one is left."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import ray
import ray.data

from pipeline.core.errors import WorkError
from pipeline.stages import pool_watch as module
from pipeline.stages.data_context import leave_words_to_us
from pipeline.stages.generate import generate
from pipeline.stages.pool_watch import watched, watched_rows
from pipeline.stages.pulse import Silent, Vitals, start_pulse
from tests.tiny_sets import tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


def nothing() -> None:
    """Ends no iterator: those here end by themselves."""


def test_rows_and_errors_come_through() -> None:
    pulse = start_pulse()
    assert list(watched(iter([1, 2, 3]), nothing, pulse, {}, 60)) == [1, 2, 3]

    def breaks():
        yield 1
        raise KeyError("x")

    rows = watched(breaks(), nothing, pulse, {}, 60)
    assert next(rows) == 1
    with pytest.raises(KeyError):
        next(rows)


def test_whoever_leaves_ends_the_iteration() -> None:
    """Also while its next row is awaited."""
    wanted = threading.Event()
    left = threading.Event()

    def waits():
        yield 1
        wanted.wait()
        left.set()

    with closing(watched(waits(), wanted.set, start_pulse(), {}, 60)) as rows:
        assert next(rows) == 1
        time.sleep(0.1)
        assert not left.is_set()
    assert left.is_set()


class Sleeper:
    """An actor that notes its process, and may never answer."""

    def __init__(self, notes: Path) -> None:
        (notes / str(os.getpid())).touch()

    def __call__(self, row: dict[str, bool]) -> dict[str, bool]:
        if row["sleeps"]:
            time.sleep(600)
        return row


def is_gone(notes: Path) -> bool:
    """Whether the process that left a note ends soon."""
    (process,) = (int(note.name) for note in notes.iterdir())
    deadline_s = time.monotonic() + 20
    while psutil.pid_exists(process) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return not psutil.pid_exists(process)


@pytest.mark.parametrize("rows_before", [0, 1])
def test_left_rays_execution_is_over_and_its_actors_are_gone(
    tmp_path: Path, rows_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its first row is awaited, too; left alone it would start dying actors again until the process ends."""

    def look(*_: object) -> None:
        if list(tmp_path.iterdir()):
            raise WorkError("enough")

    monkeypatch.setattr(module, "POLL_S", 0.1)
    monkeypatch.setattr(module._Watch, "look", look)
    leave_words_to_us()
    before = set(threading.enumerate())
    dataset = ray.data.from_items([{"sleeps": number >= rows_before} for number in range(2)], override_num_blocks=2)
    dataset = dataset.map(Sleeper, fn_constructor_args=(tmp_path,), compute=ray.data.ActorPoolStrategy(size=1))
    with watched_rows(dataset, start_pulse(), {}, 60) as rows, pytest.raises(WorkError, match="enough"):
        assert len(list(rows)) < 2
    # Ray's prefetcher waits for its garbage collection.
    assert not {thread.name for thread in set(threading.enumerate()) - before} - {"Prefetcher"}
    assert is_gone(tmp_path)


def test_slow_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row comes for longer than the timeout, but an actor goes on telling of batches."""
    monkeypatch.setattr(module, "POLL_S", 0.1)
    pulse = start_pulse()

    def slow():
        for _ in range(30):
            ray.get(pulse.beat.remote("batch"))
            time.sleep(0.1)
        yield "row"

    assert list(watched(slow(), nothing, pulse, {}, 1.5)) == ["row"]


def test_a_pool_that_cannot_start_says_why_and_ends(
    tiny_model, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Actors that need more CPUs than all nodes have: Ray itself would wait without an end. A look may take 10 s."""
    from pipeline.core.artifact import Store

    monkeypatch.setattr(module, "POLL_S", 0.5)
    monkeypatch.setattr(module, "WARN_AFTER_S", 3.0)
    config = tiny_config(tiny_model)
    greedy = config.generate.model_copy(update={"num_cpus_per_actor": 64.0, "stall_timeout_s": 20.0})
    store = Store.open(str(tmp_path / "runs"))
    with pytest.raises(WorkError, match=r"no actor could start; each needs 64 CPU, all nodes together have 4 CPU"):
        generate(config.model_copy(update={"generate": greedy}), store)
    assert "generate: nothing has happened for" in capsys.readouterr().out


def test_one_that_is_silent_is_named_unless_its_node_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such an actor is started elsewhere once there is room; until then it must not hide one that really hangs."""
    (here,) = (node["NodeID"] for node in ray.nodes())
    vitals = Vitals(quiet_s=0, starting=3, ready=3)
    watch = module._Watch(None, {}, 600, "generate", "")

    def said(*silent: Silent) -> str:
        monkeypatch.setattr(module, "ask", lambda _: dataclasses.replace(vitals, silent=silent))
        watch.look(time.monotonic())
        return capsys.readouterr().out

    lost, hung = Silent("a", "gone", 900, "making 1"), Silent("b", here, 199, "making 2 in process 5 on x")
    assert said(lost, hung) == ""
    assert (
        "said nothing for 201 s" in (line := said(lost, dataclasses.replace(hung, seconds=201))) and "making 2" in line
    )
    assert said(lost, dataclasses.replace(hung, seconds=300)) == ""
    assert "said nothing for 400 s" in said(dataclasses.replace(hung, seconds=400))
    assert said(dataclasses.replace(hung, seconds=3)) == ""
    assert "said nothing for 200 s" in said(dataclasses.replace(hung, seconds=200))
