"""Data sets of the user's own: class sub-folders under train/ and test/, one folder of classes, or two lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.image_folders import images_in
from pipeline.core.transfer_config import TransferConfig
from pipeline.core.transfer_datasets import Split, TransferSet, folder_images, read_lines, stratified_halves
from pipeline.core.user_files import IMAGE_SUFFIXES, user_path

LARGE = 100_000
"""Images of trainval above which `auto` trains by SGD."""
TEST_SHARE = 0.3
"""Of each class of a folder that comes without a split."""
USER = "your own"


def open_folder(folder: str, settings: TransferConfig) -> TransferSet:
    """A folder as a data set.

    * `trainval.txt` and `test.txt`: lines of an image's path (from the folder) and its label, see `read_lists`;
    * else `train/` and `test/` (where that is not there, `val/`), each with one sub-folder per class, the same in both;
    * else one sub-folder per class: 30 % of each class, drawn by `transfer.split_seed`, are the test set.

    Raises `InputError` when it is none of these.
    """
    root = user_path(folder, "--dataset")
    name = root.resolve().name if root.name in ("", "..") else root.name  # of a link its own, not its target's
    try:
        trainval, test, names = _read(root, settings.split_seed)
        train_images = folder_images(f"{name} trainval", *trainval)
        test_images = folder_images(f"{name} test", *test)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--dataset {folder!r}: {error}; it needs sub-folders of classes under train/ and test/ (or val/), or "
            "sub-folders of classes, or trainval.txt and test.txt"
        ) from error
    kind = ("sgd" if len(train_images) > LARGE else "lbfgs") if settings.classifier == "auto" else settings.classifier
    return TransferSet(name, USER, kind, train_images, test_images, names)


def _read(root: Path, seed: int) -> tuple[Split, Split, Sequence[str]]:
    if (root / "trainval.txt").is_file():
        return read_lists(root)
    held_out = next((part for part in ("test", "val") if (root / part).is_dir()), None)
    if held_out and (root / "train").is_dir():
        train, names = read_class_folders(root / "train")
        test, test_names = read_class_folders(root / held_out)
        if names != test_names:
            only = sorted(set(names) ^ set(test_names))
            shown = ", ".join(only[:5])
            raise ValueError(f"train/ and {held_out}/ have other classes: {shown} stand in one of them only")
        return train, test, names
    (files, labels), names = read_class_folders(root)
    is_test = stratified_halves(np.asarray(labels, np.int64), TEST_SHARE, seed)
    trainval, test = (
        ([path for path, taken in zip(files, rows, strict=True) if taken], np.asarray(labels)[rows].tolist())
        for rows in (~is_test, is_test)
    )
    return trainval, test, names


def read_class_folders(root: Path) -> tuple[Split, list[str]]:
    """Image files of class sub-folders, sorted, and the folders' names. Raises `ValueError`, `OSError`."""
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(f"{root.name}/ has {len(folders)} class sub-folders, a classifier needs two")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = images_in(folder)
        if not found:
            raise ValueError(f"{folder.name}/ holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        files += found
        labels += [label] * len(found)
    return (files, labels), [folder.name for folder in folders]


def read_lists(root: Path) -> tuple[Split, Split, list[str]]:
    """`trainval.txt` and `test.txt`: each line an image's path from the folder, a space, a label 0..C-1.

    Raises `ValueError` naming an empty list or the first wrong line, `OSError` when a list is not there.
    """
    splits = [_read_list(root, name) for name in ("trainval.txt", "test.txt")]
    present = [set(labels) for _, labels in splits]
    count = max(present[0], default=-1) + 1
    if present[0] != set(range(count)) or not present[1] <= present[0] or count < 2:
        raise ValueError("trainval.txt must have the labels 0, 1, … without a gap, and test.txt no other ones")
    return splits[0], splits[1], [str(label) for label in range(count)]


def _read_list(root: Path, name: str) -> Split:
    files: list[Path] = []
    labels: list[int] = []
    for number, line in enumerate(read_lines(root / name), start=1):
        path, _, label = line.rpartition(" ")
        if not path or not label.isdecimal():
            raise ValueError(f"{name} line {number} is no path, space and label: {line[:80]!r}")
        files.append(root / path.strip())
        labels.append(int(label))
    if not files:
        raise ValueError(f"{name} names no image")
    return files, labels
