"""Folders of labelled images as people have them, as lists of files by WNID."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import InputError

SOLUTION = "LOC_val_solution.csv"
"""Labels of ImageNet's flat validation folder as Kaggle gives them: `ImageId,PredictionString` (WNID, then boxes)."""
LAYOUTS = (
    "one sub-folder per WNID (in it or in its `val`), sub-folders named 0 to 999 (ImageNet-V2), flat images with "
    f"{SOLUTION} in it or beside it; or .parquet files"
)
_WNID = re.compile(r"n[0-9]{8}")

Listing = dict[str, list[Path]]
"""WNID -> image files, sorted by name."""


def list_images(root: Path, numbered_by: Sequence[str] | None) -> Listing:
    """The image files of a folder by class, whatever of `LAYOUTS` it has.

    Args:
        root: the folder.
        numbered_by: WNIDs that sub-folders 0, 1, 2, … mean; None when numbers mean nothing for this set.

    Raises:
        InputError: no such layout, or a number or label that means nothing.
    """
    root = part_of(root, "val")
    names = _sub_folders(root)
    if by_wnid := [name for name in names if _WNID.fullmatch(name)]:
        return {wnid: files_in(root / wnid) for wnid in sorted(by_wnid)}
    if names and all(name.isascii() and name.isdigit() for name in names):
        return _numbered(root, names, numbered_by)
    for place in (root, root.parent):
        if not names and (place / SOLUTION).is_file():
            return _flat(root, place / SOLUTION)
    raise InputError(f"test set {str(root)!r} has none of the layouts that are read: {LAYOUTS}")


def part_of(root: Path, part: str) -> Path:
    """The sub-folder `part` (`train`, `val`) where sub-folders by WNID lie in it and not directly in the folder."""
    names = _sub_folders(root)
    return root / part if part in names and not any(_WNID.fullmatch(name) for name in names) else root


def _sub_folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def files_in(folder: Path) -> list[Path]:
    """What lies in a folder, sorted by name; hidden files are passed over."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _numbered(root: Path, names: Sequence[str], numbered_by: Sequence[str] | None) -> Listing:
    if numbered_by is None:
        raise InputError(f"test set {str(root)!r} has sub-folders named by numbers; name them by WNID")
    if beyond := [name for name in names if int(name) >= len(numbered_by)]:
        raise InputError(f"test set {str(root)!r}: sub-folder {beyond[0]} is above {len(numbered_by) - 1}; remove it")
    return {numbered_by[int(name)]: files_in(root / name) for name in sorted(names, key=int)}


def _flat(root: Path, solution: Path) -> Listing:
    files = {path.stem: path for path in files_in(root) if path.suffix.lower() in (".jpeg", ".jpg", ".png")}
    found: Listing = {}
    with solution.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
        for row in rows or [{}]:
            image, wnid = row.get("ImageId"), (row.get("PredictionString") or "").split(" ")[0]
            if image is None or not _WNID.fullmatch(wnid):
                raise InputError(f"{str(solution)!r} is not Kaggle's list: each line is `ImageId,WNID box …`; fetch it")
            if image not in files:
                raise InputError(f"test set {str(root)!r} lacks image {image!r} of {solution.name}; complete it")
            found.setdefault(wnid, []).append(files[image])
    return {wnid: sorted(found[wnid]) for wnid in sorted(found)}
