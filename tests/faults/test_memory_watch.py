"""The judge of memory over time, on made-up series: a leak is seen, and nothing else is taken for one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.faults.memory_watch import MemoryWatch, Series, growth, role_of

HOUR_S = 3600
LIMITS = {"warm_up_s": 120, "least_s": 120, "bound_mib_per_hour": 60}


def series(seconds: int, leak_mib_per_hour: float = 0.0, warm_up_mib: float = 300.0) -> Series:
    """A process that fills up in a minute, then shakes by some MiB, with a peak of 200 MiB in every tenth sample."""
    shaken = random.Random(1)
    times = list(range(0, seconds + 1, 10))
    own = [
        100.0
        + warm_up_mib * min(at / 60, 1)
        + leak_mib_per_hour * at / HOUR_S
        + shaken.uniform(-3, 3)
        + 200 * (at % 100 == 50)
        for at in times
    ]
    return Series("driver", "head", 1, [float(at) for at in times], own, own)


@pytest.mark.parametrize("leak", [90, 1000])
def test_a_planted_leak_is_seen_in_an_hour(leak: float) -> None:
    found = growth(series(HOUR_S, leak), **LIMITS)
    assert found.is_leak and found.mib_per_hour == pytest.approx(leak, rel=0.05), found


@pytest.mark.parametrize("seconds", [300, 900, HOUR_S])
def test_what_fills_up_shakes_and_peaks_is_no_leak(seconds: int) -> None:
    found = growth(series(seconds, 20), **LIMITS)
    assert not found.is_leak and found.span_s == seconds - 120, found


def test_a_steep_leak_is_seen_in_three_minutes() -> None:
    assert growth(series(300, 600), **LIMITS).is_leak


def test_a_process_that_was_there_for_a_moment_is_not_judged() -> None:
    found = growth(series(200, 10_000), **LIMITS)
    assert found.span_s == 0 and not found.is_leak, found


def test_a_process_is_sampled_until_it_ends(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watch = MemoryWatch(tmp_path / "memory.csv")
    process = psutil.Process(child.pid)
    watch.sample(0, {"head": [process, psutil.Process(os.getpid())]})
    child.communicate(b"\n")
    watch.sample(10, {"head": [process, psutil.Process(os.getpid())]})
    watch.close()
    assert {one.pid: len(one.seconds) for one in watch.series} == {child.pid: 1, os.getpid(): 2}
    assert all(0 < own <= pss for one in watch.series for own, pss in zip(one.own_mib, one.pss_mib, strict=True))
    lines = (tmp_path / "memory.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[1].startswith(f"0.0,head,other,{child.pid},")


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("/x/ray/core/src/ray/raylet/raylet --dashboard_agent_command=python dashboard/agent.py", "raylet"),
        ("/x/ray/core/src/ray/gcs/gcs_server --log_dir=/x", "gcs"),
        ("/x/python -u /x/ray/dashboard/dashboard.py --host=127.0.0.1", "dashboard"),
        ("ray::MapWorker(MapBatches(ShardActor)).submit", "actor"),
        ("ray::Pulse", "pulse"),
        ("ray::IDLE", "other worker"),
        ("python -m jobs.generate --preset fashion", "driver"),
        ("/bin/sh -c python -m jobs.generate --preset fashion", "other"),
        ("/x/python -m jobs.submit -- python -m jobs.generate", "follower"),
    ],
)
def test_roles(line: str, role: str) -> None:
    assert role_of(line.split()) == role
