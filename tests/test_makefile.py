"""The Makefile's set-up on machines that lack something: one line says what to do. What it does when all is there is
seen by every run of `make test`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that was never set up."""
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=clone, capture_output=True, text=True, check=False)


def fake_python(folder: Path, script: str) -> str:
    program = folder / "fake-python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_missing_python_is_one_line(clone: Path) -> None:
    done = make(clone, "setup", "PYTHON=no-such-python")
    assert done.returncode == 2
    assert "error: no-such-python is missing or older than 3.10; give another one: make PYTHON=" in done.stderr


def test_old_python_is_one_line(clone: Path) -> None:
    python = fake_python(clone, "exit 1")  # what the version check of an old Python ends with
    done = make(clone, "demo", f"PYTHON={python}")
    assert done.returncode == 2
    assert "is missing or older than 3.10; give another one: make PYTHON=python3.12 demo" in done.stderr
    assert not (clone / ".venv").exists()


def test_missing_pip_is_one_line(clone: Path) -> None:
    python = fake_python(clone, 'case "$*" in *pip*) echo "No module named pip" >&2; exit 1;; esac')
    done = make(clone, "setup", f"PYTHON={python}")
    assert done.returncode == 2
    assert "No module named pip" in done.stderr
    assert "pip must be there" in done.stderr


def test_interrupted_set_up_starts_over_and_a_finished_one_costs_nothing(clone: Path) -> None:
    (clone / ".venv").mkdir()
    assert make(clone, "-q", "setup").returncode == 1
    stamp = clone / ".venv" / "installed"
    stamp.touch()
    assert make(clone, "-q", "setup").returncode == 0
    os.utime(stamp, (0, 0))  # a lock newer than what is installed
    assert make(clone, "-q", "setup").returncode == 1


def test_what_is_installed_is_compiled() -> None:
    """Else every process compiles it anew where Python may not write bytecode: CI took 82 minutes for a fifth of it."""
    for name in ("torch", "diffusers", "ray"):
        module = importlib.util.find_spec(name)
        assert module is not None and module.cached is not None
        assert Path(module.cached).is_file(), f"{name} has no bytecode; mend with: make setup"


def test_help_lists_every_target(clone: Path) -> None:
    listed = {line.split()[0] for line in make(clone, "help").stdout.splitlines()}
    assert {"setup", "demo", "test", "lint", "bench", "docs", "clean", "help"} <= listed
