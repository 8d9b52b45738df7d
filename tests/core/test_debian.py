"""Packages fetched and unpacked without root: each step against stand-ins for apt-get and dpkg-deb."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.core.debian import run_command, unpack_debian_packages
from pipeline.core.errors import WorkError


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def fake(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho {name} "$@" >> {folder}/calls\n{script}\n')
    (folder / name).chmod(0o755)


UNPACK = 'mkdir -p "$3/usr/share" && basename "$2" > "$3/usr/share/content"'


def test_packages_are_unpacked_into_the_target(programs: Path, tmp_path: Path) -> None:
    fake(programs, "apt-get", "touch one.deb two.deb")
    fake(programs, "dpkg-deb", UNPACK)
    unpack_debian_packages(["one", "two"], tmp_path / "cache" / "data")
    assert (tmp_path / "cache/data/usr/share/content").read_text() == "two.deb\n"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["data"]


def test_lists_are_fetched_into_a_private_folder_when_the_machine_has_none(programs: Path, tmp_path: Path) -> None:
    fake(
        programs,
        "apt-get",
        'case "$*" in *State::lists=*download*) touch one.deb;; *update*) ;; *) exit 100;; esac',
    )
    fake(programs, "dpkg-deb", UNPACK)
    unpack_debian_packages(["one"], tmp_path / "data")
    verbs = [line.split()[-2:] for line in (programs / "calls").read_text().splitlines() if "apt-get" in line]
    assert [verb[-1] for verb in verbs] == ["one", "update", "one"]
    assert (tmp_path / "data/usr/share/content").exists()


def test_target_is_replaced_whole(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "half").write_text("from an interrupted run")
    fake(programs, "apt-get", "touch one.deb")
    fake(programs, "dpkg-deb", UNPACK)
    unpack_debian_packages(["one"], tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["usr"]


def test_failing_unpack_leaves_nothing_behind(programs: Path, tmp_path: Path) -> None:
    fake(programs, "apt-get", "touch one.deb")
    fake(programs, "dpkg-deb", f"{UNPACK}; echo no space >&2; exit 2")
    with pytest.raises(WorkError, match="dpkg-deb failed with exit code 2: no space"):
        unpack_debian_packages(["one"], tmp_path / "cache" / "data")
    assert list((tmp_path / "cache").iterdir()) == []


def test_unknown_package_tells_apts_own_words(programs: Path, tmp_path: Path) -> None:
    fake(
        programs, "apt-get", 'case "$*" in *update*) ;; *) echo "E: Unable to locate package one" >&2; exit 100;; esac'
    )
    fake(programs, "dpkg-deb", UNPACK)
    with pytest.raises(WorkError, match="Unable to locate package one"):
        unpack_debian_packages(["one"], tmp_path / "data")


def test_other_systems_are_told_apart(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="apt-get is not on this machine"):
        unpack_debian_packages(["one"], tmp_path / "data")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs Debian's dpkg-deb")
def test_real_dpkg_deb_unpacks_a_real_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dpkg_deb = shutil.which("dpkg-deb")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: one\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: test\n"
    )
    (tree / "usr").mkdir()
    (tree / "usr/file").write_text("content")
    subprocess.run([str(dpkg_deb), "--build", "--root-owner-group", str(tree), str(tmp_path / "one.deb")], check=True)
    folder = tmp_path / "programs"
    folder.mkdir()
    fake(folder, "apt-get", f"cp {tmp_path}/one.deb .")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    unpack_debian_packages(["one"], tmp_path / "data")
    assert (tmp_path / "data/usr/file").read_text() == "content"


def test_hanging_program_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="sleep did not end within 0 s"):
        run_command(["sleep", "5"], tmp_path, 0.2)
