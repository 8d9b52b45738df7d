from collections import Counter
from collections.abc import Mapping

import pytest

from pipeline.core.image_set import ShardSummary
from pipeline.stages import progress
from pipeline.stages.progress import Progress, Tally, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shard(
    rows: int,
    reasons: Mapping[str, int] | None = None,
    *,
    engine_s: float = 5,
    started: float = 0,
    seconds: float = 0,
    counts: Mapping[str, int] | None = None,
) -> ShardSummary:
    """A finished shard; `started` and `seconds` later are times of its worker's clock."""
    about = {"counts": dict(counts or {}), "reasons": dict(reasons or {}), "rows_sha256": "", "engine_s": engine_s}
    return ShardSummary(shard=0, row_start=0, rows=rows, started=started, finished=started + seconds, **about)


def test_a_line_counts_earlier_work_but_not_in_the_rate(clock: list[float]):
    with Progress(2000, 400, 10, Tally(failed=Counter({"KeyError: a": 3}))) as said:
        said.add(shard(200, {"ValueError: b": 2, "OSError: c": 1}, engine_s=40, seconds=20))
        expected = "generate 600/2000 images, 10.0 images/s (5.0 per busy actor), 2 min 20 s left"
        assert said.line() == f"{expected}, 6 failed (3 x KeyError: a; 2 x ValueError: b; 1 x OSError: c)"


def test_blank_and_flagged_images_are_told_where_there_are_any(clock: list[float]):
    with Progress(2000, 400, 10, Tally(unused=Counter({"blank": 1}))) as said:
        said.add(shard(200, counts={"ok": 196, "blank": 4}))
        assert said.line().endswith(", 0 failed, 5 blank")
        said.add(shard(200, counts={"ok": 197, "nsfw": 3}))
        assert said.line().endswith(", 0 failed, 5 blank, 3 nsfw")


def test_the_first_new_shard_starts_the_clock(clock: list[float]):
    with Progress(200, 0, 10) as said:
        said.add(shard(50, seconds=1000), is_new=False)
        assert "time left unknown" in said.line()
        said.add(shard(50, seconds=5))
        clock[0] += 5
        said.add(shard(50, seconds=1))
        assert "15.0 images/s" in said.line()


@pytest.mark.parametrize("ahead_s", [0, 60, -3600])
def test_a_workers_clock_may_be_wrong(clock: list[float], ahead_s: float):
    with Progress(1000, 0, 10) as said:
        said.add(shard(100, seconds=40, started=progress.time.time() - 40 + ahead_s))
        assert "2.5 images/s" in said.line() and "6 min 00 s left" in said.line()


def test_a_log_gets_a_line_per_interval(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Progress(100, 0, 10) as said:
        for _ in range(10):
            clock[0] += 5
            said.add(shard(10))
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (3600 * 7 + 720, "7 h 12 min")]
)
def test_durations_are_for_people(seconds: float, text: str):
    assert duration(seconds) == text
