"""Debian's archive as a source of data sets: packages fetched and unpacked without root.

Nothing is installed and the system's package state is not touched: apt works on lists and a cache of its own in a
temporary folder where the machine's own lists are missing or old. apt checks the archive's signatures, as always.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import WorkError

APT_OPTIONS = ["-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20"]
TIMEOUT_S = 300


def unpack_debian_packages(names: Sequence[str], target: Path) -> None:
    """Fetch Debian packages and unpack their files below `target`, which appears whole or not at all.

    Args:
        names: binary packages, e.g. `["wordnet-base"]`; Debian's own names, never a user's text.
        target: folder that will hold their tree (`target/usr/share/…`); replaced when it is there.

    Raises:
        WorkError: not a Debian system, the archive does not answer, or the folder cannot be written.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise WorkError(f"{tool} is not on this machine, so Debian's {', '.join(names)} cannot be fetched")
    unpacked = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    with tempfile.TemporaryDirectory(prefix="synthclones-apt-") as scratch:
        packages = _download(names, Path(scratch))
        try:
            unpacked.mkdir(parents=True)
            for package in packages:
                run_command(["dpkg-deb", "-x", str(package), str(unpacked)], Path(scratch), TIMEOUT_S)
            if target.exists():
                shutil.rmtree(target)
            os.replace(unpacked, target)
        except OSError as error:
            raise WorkError(f"cannot write {error.filename or target}: {error.strerror}") from error
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def _download(names: Sequence[str], folder: Path) -> list[Path]:
    """The .deb files, with the machine's package lists or, where those do not do, with fresh ones in `folder`."""
    try:
        run_command(["apt-get", *APT_OPTIONS, "download", *names], folder, TIMEOUT_S)
    except WorkError:
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "cache" / "archives" / "partial").mkdir(parents=True)
        private = [*APT_OPTIONS, "-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        run_command(["apt-get", *private, "update"], folder, TIMEOUT_S)
        run_command(["apt-get", *private, "download", *names], folder, TIMEOUT_S)
    packages = sorted(folder.glob("*.deb"))
    if len(packages) != len(names):
        raise WorkError(f"apt-get download {' '.join(names)} left {len(packages)} files, not {len(names)}")
    return packages


def run_command(command: list[str], folder: Path, timeout_s: float) -> None:
    """Run a program in `folder`, quietly. Raises `WorkError` with its last line of stderr when it fails or hangs."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise WorkError(f"{command[0]} did not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise WorkError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise WorkError(f"{command[0]} failed with exit code {done.returncode}: {lines[-1] if lines else 'no message'}")
