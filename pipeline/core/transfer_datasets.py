"""The data sets of transfer: where each lies, how it is split, what to do when it is not there.

Sizes, splits and groups: trex, the code base beside the paper. Nothing is fetched unless it is asked for.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.class_draws import drawn_from_each_class
from pipeline.core.datasets import CONNECT_TIMEOUT_S
from pipeline.core.errors import MissingDataError
from pipeline.core.identity import content_hash
from pipeline.core.real_images import ArrayImages
from pipeline.core.transfer_config import TransferConfig
from pipeline.core.transfer_images import TransferImages
from pipeline.core.user_files import file_marks, user_path

Images = ArrayImages | TransferImages
Split = tuple[Sequence[Path], Sequence[int]]
"""Image files and their labels 0..C-1."""


@dataclass(frozen=True)
class TransferSet:
    """A data set ready for a probe.

    Args:
        name: as it was asked for.
        group: sets whose mean is reported together.
        classifier: `lbfgs` or `sgd`.
        trainval: labelled images to train on.
        test: labelled images to score on.
        class_names: in label order.
    """

    name: str
    group: str
    classifier: str
    trainval: Images
    test: Images
    class_names: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """One named set.

    Args:
        group: see `TransferSet`.
        classifier: that the paper's protocol uses for it.
        sizes: images of trainval and test as published; None: any.
        source: where to get it.
        layout: where its files belong under `transfer.data_dir`.
        read: (folder, split seed) -> trainval files, test files, class names; raises `OSError` or `RuntimeError` when
            files are not there.
        download: torchvision's download into a folder, where there is one that works.
    """

    group: str
    classifier: str
    sizes: tuple[int, int] | None
    source: str
    layout: str
    read: Callable[[Path, int], tuple[Split, Split, Sequence[str]]]
    download: Callable[[Path], object] | None = None


_CUT = "; where a download was cut off, remove its archive and its folder first"


def open_named(name: str, entry: Entry, settings: TransferConfig, *, download: bool) -> TransferSet:
    """One set of the table under `settings.data_dir`. Raises `MissingDataError` that says where to get it."""
    root = user_path(settings.data_dir, "transfer.data_dir")
    where = f"{name}: get it from {entry.source} and lay it out under {str(root)!r} as {entry.layout}"
    try:
        if download and entry.download is not None:
            with _impatient():
                entry.download(root)
        trainval, test, names = entry.read(root, settings.split_seed)
        train_images = folder_images(f"{name} trainval", *trainval)
        test_images = folder_images(f"{name} test", *test)
    except Exception as error:
        reason = str(error).partition(" You can use download=True")[0][:160] or type(error).__name__
        if download:
            fetch = "; there is no download for it" if entry.download is None else _CUT
        else:
            fetch = "" if entry.download is None else ", or give --download"
        raise MissingDataError(f"{where}{fetch} ({' '.join(reason.split())})") from error
    check_sizes(where, entry.sizes, (len(train_images), len(test_images)))
    kind = entry.classifier if settings.classifier == "auto" else settings.classifier
    return TransferSet(name, entry.group, kind, train_images, test_images, names)


def check_sizes(where: str, published: tuple[int, int] | None, found: tuple[int, int]) -> None:
    """Raise `MissingDataError` when a set has other sizes than published: a part of it would give a wrong number."""
    if published is not None and found != published:
        raise MissingDataError(
            f"{where} (found {found[0]} images to train on and {found[1]} to test on instead of {published[0]} and "
            f"{published[1]}, so it is not whole)"
        )


def folder_images(name: str, files: Sequence[Path], labels: Sequence[int]) -> TransferImages:
    """Files as labelled images; the fingerprint is over their names, `file_marks` and labels, not over the folder."""
    listing = [
        [path.parent.name, path.name, *mark, int(label)]
        for path, mark, label in zip(files, file_marks(files), labels, strict=True)
    ]
    return TransferImages(name, content_hash(listing), files, np.asarray(labels, np.int64))


@contextmanager
def _impatient() -> Iterator[None]:
    """torchvision waits for a silent host without end; inside, `CONNECT_TIMEOUT_S` at most."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def stratified_halves(labels: NDArray[np.int64], test_share: float, seed: int) -> NDArray[np.bool_]:
    """Test rows, bool [n]: `test_share` of every class, rounded, drawn by the seed; each class keeps one on each side.

    Raises `ValueError` when a class has fewer than two images.
    """
    found, counts = np.unique(labels, return_counts=True)
    if (counts < 2).any():
        label = found[counts < 2][0]
        raise ValueError(f"class {label} has one image, and one is needed on each side of the split")
    return drawn_from_each_class(labels, lambda count: min(max(round(test_share * count), 1), count - 1), seed)


def concatenated(*splits: Split) -> Split:
    """One split after the other."""
    return [path for files, _ in splits for path in files], [label for _, labels in splits for label in labels]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file without blank ones. Raises `OSError`; `ValueError` when it is no text."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def read_inaturalist(folder: Path, year: int) -> tuple[Split, Split, list[str]]:
    """iNaturalist 2018 or 2019 by its two annotation files; the published val is the test set, as the paper has it."""

    def split(part: str) -> tuple[Split, list[str]]:
        notes: dict[str, Any] = json.loads((folder / f"{part}{year}.json").read_text(encoding="utf-8"))
        category = {note["image_id"]: int(note["category_id"]) for note in notes["annotations"]}
        names = {int(item["id"]): str(item["name"]) for item in notes["categories"]}
        files = [folder / image["file_name"] for image in notes["images"]]
        labels = [category[image["id"]] for image in notes["images"]]
        return (files, labels), [names[label] for label in sorted(names)]

    train, names = split("train")
    test, _ = split("val")
    return train, test, names
