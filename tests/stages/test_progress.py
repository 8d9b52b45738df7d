import pytest

from pipeline.stages import progress
from pipeline.stages.progress import Progress, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_counts_earlier_work_but_not_in_the_rate(clock: list[float]):
    with Progress(2000, 400, 10, {"KeyError: a": 3}) as said:
        said.start_clock(seconds_ago=0)
        clock[0] += 20
        said.add(200, {"ValueError: b": 2, "OSError: c": 1}, actor_s=40)
        expected = "generate 600/2000 images, 10.0 images/s (5.0 per busy actor), 2 min 20 s left"
        assert said.line() == f"{expected}, 6 failed (3 x KeyError: a; 2 x ValueError: b; 1 x OSError: c)"


def test_the_first_actor_starts_the_clock(clock: list[float]):
    with Progress(100, 0, 10) as said:
        said.start_clock(seconds_ago=5)
        clock[0] += 5
        said.start_clock(seconds_ago=1)
        said.add(50, {}, 5)
        assert "5.0 images/s" in said.line()


def test_a_log_gets_a_line_per_interval(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Progress(100, 0, 10) as said:
        said.start_clock(0)
        for _ in range(10):
            clock[0] += 5
            said.add(10, {}, 5)
    assert len(capsys.readouterr().out.splitlines()) == 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (3600 * 7 + 720, "7 h 12 min")]
)
def test_durations_are_for_people(seconds: float, text: str):
    assert duration(seconds) == text
