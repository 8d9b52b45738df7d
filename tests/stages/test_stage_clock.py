from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.stages.stage_clock import StageClock


def test_sessions_add_up(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for _ in range(2):
        clock = StageClock(store, "clock.json")
        with clock.stage("a"):
            time.sleep(0.1)
        with suppress(KeyError), clock.stage("b"):
            time.sleep(0.05)
            raise KeyError
    found = StageClock(store, "clock.json").seconds
    assert list(found) == ["a", "b"]
    assert 0.2 <= found["a"] < 2 and 0.1 <= found["b"] < 2


def test_a_session_that_is_killed_has_left_its_time(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    clock = StageClock(store, "clock.json", beat_s=0.02)
    began = time.monotonic()
    with clock.stage("a"):  # until a beat is found, as the next session would find it after a SIGKILL then
        while not (seen := StageClock(store, "clock.json").seconds.get("a")):
            time.sleep(0.01)
        elapsed = time.monotonic() - began
    assert 0 < seen <= elapsed


def test_a_full_disk_does_not_end_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    clock = StageClock(Store(str(tmp_path / "file")), "clock.json", beat_s=0.01)
    with clock.stage("a"):
        time.sleep(0.05)
    assert clock.seconds["a"] >= 0.05
