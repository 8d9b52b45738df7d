"""Under pytest-xdist a file's tests stay in one process, and all that start clusters in one, too."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.conftest import run_pytest

FILES = ["faults/test_a.py", "faults/test_b.py", "jobs/test_submit.py", "test_c.py", "test_d.py", "core/test_e.py"]


def test_a_lane_is_worked_off_by_one_process(tmp_path: Path) -> None:
    for name in FILES:
        path = tmp_path / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_it(n):\n    pass\n")
    hooks = "pytest_collection_modifyitems, pytest_xdist_make_scheduler"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {hooks}\n")
    words = ["-v", "-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "--import-mode=importlib"]
    done = run_pytest(tmp_path, *words, "tests")
    processes = defaultdict(set)
    lines = [line.split() for line in done.stdout.splitlines() if " PASSED " in line]
    assert len(lines) == 6 * len(FILES), done.stdout + done.stderr
    for line in lines:
        processes[line[-1].partition("::")[0].removeprefix("tests/")].add(line[0])
    assert all(len(found) == 1 for found in processes.values()), processes
    assert processes["faults/test_a.py"] == processes["faults/test_b.py"] == processes["jobs/test_submit.py"]
    assert set.union(*processes.values()) == {"[gw0]", "[gw1]"}
