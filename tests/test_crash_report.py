"""A test process that dies says how it ended."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import run_pytest
from tests.crash_report import crash_report

DYING = "import os, signal\ndef test_dies():\n    os.kill(os.getpid(), signal.SIGKILL)\n"


def test_a_killed_test_process_is_named_with_its_signal(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_testnodedown\n")
    (tmp_path / "test_it.py").write_text(DYING)
    done = run_pytest(tmp_path, "-q", "-n", "1", "--max-worker-restart", "0", ".")
    assert done.returncode != 0 and "gw0: it ended with SIGKILL (-9); " in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("code", "name"), [(1, "exit code 1"), (-11, "SIGSEGV (-11)"), (None, "no exit code yet")])
def test_each_end_has_its_name(code: int | None, name: str, tmp_path: Path) -> None:
    assert crash_report(code, tmp_path).startswith(f"it ended with {name}; ")


def test_the_last_lines_of_recent_rays_are_shown(tmp_path: Path) -> None:
    logs = tmp_path / "session_2026-01-02" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("".join(f"line {number}\n" for number in range(100)))
    (logs / "python-core-worker-1.log").write_text("not of the driver")
    old = logs / "gcs_server.out"
    old.write_text("long ago")
    os.utime(old, (0, 0))
    report = crash_report(1, tmp_path).splitlines()
    assert report[1] == "--- session_2026-01-02/raylet.out"
    assert report[2:] == [f"line {number}" for number in range(88, 100)]
