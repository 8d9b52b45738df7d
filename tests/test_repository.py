"""Rules of the repository's own files: the lock, the package, what no tracked file may name, the CI script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the locked set has it there: pytest reads pyproject.toml with it

REPOSITORY = Path(__file__).parent.parent
LOCK = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")

# Written in two halves, so that this file does not break its own rule.
NOT_TO_BE_NAMED = [
    "/" + "work/",
    "/" + "home/",
    ".." + "/shared",
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "deb.debian" + ".org",
    "npmjs" + ".org",
]


def tracked_files() -> list[Path]:
    """What is or would be committed."""
    if not (REPOSITORY / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs a git checkout")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    paths = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def project() -> dict[str, Any]:
    value: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return value


def test_every_locked_package_has_a_version_and_hashes() -> None:
    entries = re.split(r"\n(?=[a-z0-9])", "\n".join(line for line in LOCK.splitlines() if not line.startswith("#")))
    assert len(entries) > 100
    wrong = [e.splitlines()[0] for e in entries if not re.match(r"[\w.\[\],-]+==\S+", e) or "--hash=sha256:" not in e]
    assert wrong == []


def test_lock_names_no_index_and_no_host() -> None:
    assert re.findall(r"://|--index|--extra-index|--find-links|--trusted-host", LOCK) == []


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_holds_every_dependency_and_extra() -> None:
    table = project()["project"]
    extras = [name for names in table["optional-dependencies"].values() for name in names]
    wanted = {normal(re.split(r"[\[<>=~ ]", name)[0]) for name in [*table["dependencies"], *extras]}
    locked = {normal(name) for name in re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==", LOCK, flags=re.MULTILINE)}
    assert wanted - locked == set()


def test_every_dependency_has_a_reason() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    lists = text[text.index("dependencies = [") : text.index("[tool.setuptools")]
    names = [line for line in lists.splitlines() if re.match(r'\s+"', line)]
    assert len(names) > 25
    plain = ('"pytest', '"mypy', '"ruff', '"pre-commit', '"types-PyYAML')  # tools whose name says it all
    assert [line for line in names if "#" not in line and not line.strip().startswith(plain)] == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            found += [f"{path.relative_to(REPOSITORY)}: {word}" for word in NOT_TO_BE_NAMED if word.encode() in content]
    assert found == []


def test_package_carries_every_data_file() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["pipeline"]
    data = [path for path in tracked_files() if path.is_relative_to(REPOSITORY / "pipeline") and path.suffix != ".py"]
    assert data
    left_out = []
    for path in data:
        name = path.relative_to(REPOSITORY / "pipeline").as_posix()
        if not any(fnmatch(name, pattern.replace("**/", "")) for pattern in patterns):
            left_out.append(name)
    assert left_out == []


def test_no_tracked_file_is_huge() -> None:
    limit_bytes = 25 * 2**20  # of the generator's whole directory; history keeps every version of a file
    assert {str(path): path.stat().st_size for path in tracked_files() if path.stat().st_size > limit_bytes} == {}


def test_readme_make_and_ci_name_the_same_test_command() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^test:.*\n(?:\t@#.*\n)*\t(.+)$", makefile, flags=re.MULTILINE)
    assert recipe is not None
    command = recipe[1].replace("$(BIN)", ".venv/bin")
    assert f"`{command}`" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^timeout .+ (make .+)$", script, flags=re.MULTILINE) == ["make test"]


@pytest.mark.parametrize("failing", ["setup", "lint", "audit", "test", "nothing"])
def test_ci_script_stops_at_the_first_failure(failing: str, tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / ".ci")  # with its mode
    tools = tmp_path / "tools"
    tools.mkdir()
    make = f'echo "$1" >> "{tmp_path}/made"; [ "$1" != {failing} ]'
    for name, line in {"make": make, "chromium": "", "initdb": ""}.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    ended = subprocess.run([script], env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}, timeout=60)
    made = (tmp_path / "made").read_text().split()
    assert (ended.returncode == 0) == (failing == "nothing")
    if failing in ("test", "nothing"):
        assert (made[0], sorted(made[1:3]), made[3:]) == ("setup", ["audit", "lint"], ["test"])
    else:
        assert "test" not in made


def test_notices_of_what_ships_are_there() -> None:
    assert "Apache License" in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Princeton University" in (REPOSITORY / "pipeline/assets/WORDNET_LICENSE.txt").read_text(encoding="utf-8")
