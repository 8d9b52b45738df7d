"""When a quiet job speaks and when it ends."""

from __future__ import annotations

import pytest

from pipeline.core.errors import WorkError
from pipeline.core.stall import CrashClock, StallClock


def test_it_speaks_once_for_each_span_of_silence() -> None:
    clock = StallClock(10, 100)
    said = [clock.look(quiet, "x") is not None for quiet in (0, 9, 10, 11, 19, 20, 35, 36)]
    assert said == [False, False, True, False, False, True, True, False]


def test_after_a_sign_of_life_it_starts_anew() -> None:
    clock = StallClock(10, 100)
    assert clock.look(25, "x")
    assert clock.look(3, "x") is None
    assert clock.look(12, "a reason") == "nothing has happened for 12 s: a reason"


def test_it_gives_up_with_the_reason_and_the_mend() -> None:
    clock = StallClock(10, 100)
    with pytest.raises(WorkError, match=r"for 100 s: no GPU; .* run the same command again, .*stall_timeout_s"):
        clock.look(100, "no GPU")


def test_starts_in_a_row_are_told_now_and_then_and_end_the_job() -> None:
    clock = CrashClock(2, 5)
    assert [clock.look(starts, "x") is not None for starts in (0, 1, 2, 3, 4)] == [False, False, True, False, True]
    with pytest.raises(WorkError, match="started 5 times .* last said: making shard 7; .* run the same command again"):
        clock.look(5, "making shard 7")


def test_a_finished_shard_begins_the_count_of_starts_anew() -> None:
    clock = CrashClock(2, 5)
    assert clock.look(3, "x") and clock.look(0, "x") is None and clock.look(2, "x")


def test_one_silent_actor_is_told_now_and_then_and_ends_nothing() -> None:
    clock = StallClock(10, 100)
    said = [clock.look_at_one(quiet, "making shard 7 in process 5 on host a") for quiet in (9, 12, 15, 1000, 3, 10)]
    assert [line is not None for line in said] == [False, True, False, True, False, True]
    assert said[1] is not None and said[1].startswith("an actor has said nothing for 12 s while others work;")
    assert "making shard 7 in process 5 on host a; if that process hangs, end it" in said[1]
