"""What the tests of bad input share: a case, the place it works in, and what every refusal must look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Case(NamedTuple):
    """One command line. `@tmp`, `@tiny`, `@model` stand for paths and ids; each of `says` is in the error line."""

    module: str
    words: str
    code: int
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda _: None


class Place(NamedTuple):
    """Where a case works: its folder, a storage root with one model in it, and what its words stand for."""

    tmp: Path
    root: Path
    stands_for: dict[str, str]


def fill(text: str, place: Place) -> str:
    for short, long in place.stands_for.items():
        text = text.replace(short, long)
    return text


def arguments(case: Case, place: Place) -> list[str]:
    words = fill(case.words, place).split()
    root = [] if "--root" in words else ["--root", str(place.root)]
    track = [] if "tracking" in case.words or case.module == "build_classes" else ["--set", "tracking.enabled=false"]
    return [*words, *root, *track]


def tree(*folders: Path) -> dict[Path, bytes]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in sorted(files) if path.stat().st_size < 1 << 20}


def check(code: int, out: str, err: str, case: Case, place: Place) -> None:
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == case.code, err
    assert "Traceback" not in out + err
    assert len(errors) == 1 and err.rstrip().endswith(errors[0]), err
    for part in case.says:
        assert fill(part, place) in errors[0]
