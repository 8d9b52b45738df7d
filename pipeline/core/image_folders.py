"""Folders of labelled images as people have them, as lists of files by WNID."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import InputError
from pipeline.core.user_files import is_image

NUMBERED = ("imagenet_v2_matched_frequency", "imagenet_v2_threshold_07", "imagenet_v2_top_images")
"""Known sets that come in sub-folders named 0 to 999."""
SOLUTION = "LOC_val_solution.csv"
"""Labels of ImageNet's flat validation folder as Kaggle gives them: `ImageId,PredictionString` (WNID, then boxes)."""
LAYOUTS = (
    "one sub-folder per WNID (in it or in its `val`), sub-folders named 0 to 999 (ImageNet-V2), flat images with "
    f"{SOLUTION} in it, beside it or above it (the devkit's own numbers are not read); or .parquet files"
)
_LEVELS_ABOVE = 4  # of the list: Kaggle's archive has it beside ILSVRC/Data/CLS-LOC/val
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
        return {wnid: images_in(root / wnid) for wnid in sorted(by_wnid)}
    if names and all(name.isascii() and name.isdigit() for name in names):
        return _numbered(root, names, numbered_by)
    absolute = root.absolute()
    for place in (absolute, *absolute.parents[:_LEVELS_ABOVE]):
        if not names and (place / SOLUTION).is_file():
            return _flat(root, place / SOLUTION)
    raise InputError(f"test set {str(root)!r} has none of the layouts that are read: {LAYOUTS}")


def part_of(root: Path, part: str) -> Path:
    """The sub-folder `part` (`train`, `val`) where sub-folders by WNID lie in it and not directly in the folder."""
    names = _sub_folders(root)
    return root / part if part in names and not any(_WNID.fullmatch(name) for name in names) else root


def _sub_folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; hidden ones and files of other names are passed over."""
    return sorted(path for path in folder.iterdir() if is_image(path) and not path.name.startswith("."))


def _numbered(root: Path, names: Sequence[str], numbered_by: Sequence[str] | None) -> Listing:
    if numbered_by is None:
        raise InputError(
            f"test set {str(root)!r} has sub-folders named by numbers, which mean classes only in a known set "
            f"({', '.join(NUMBERED)}); give it by that name, --set evaluate.test_sets.NAME=FOLDER and, as the main "
            "set, --set evaluate.test_set=NAME; or name the sub-folders by WNID"
        )
    if beyond := [name for name in names if int(name) >= len(numbered_by)]:
        raise InputError(f"test set {str(root)!r}: sub-folder {beyond[0]} is above {len(numbered_by) - 1}; remove it")
    return {numbered_by[int(name)]: images_in(root / name) for name in sorted(names, key=int)}


def _flat(root: Path, solution: Path) -> Listing:
    files = {path.stem: path for path in images_in(root)}
    found: Listing = {}
    try:
        with solution.open(encoding="utf-8-sig", newline="") as lines:  # Excel puts a mark before the first name
            rows = list(csv.DictReader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{str(solution)!r} is no list in UTF-8 ({error}); fetch it") from error
    for row in rows or [{}]:
        image, wnid = row.get("ImageId"), (row.get("PredictionString") or "").split(" ")[0]
        if image is None or not _WNID.fullmatch(wnid):
            raise InputError(f"{str(solution)!r} is not Kaggle's list: each line is `ImageId,WNID box …`; fetch it")
        if image not in files:
            raise InputError(f"test set {str(root)!r} lacks image {image!r} of {solution.name}, or has it twice there")
        found.setdefault(wnid, []).append(files.pop(image))
    return {wnid: sorted(found[wnid]) for wnid in sorted(found)}
