"""Labelled real images to score on, from arrays, folders and Parquet, each with the classes of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.core.augment import eval_crop, eval_transform
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.datasets import IDX_SHA256, as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash
from pipeline.core.image_folders import list_images
from pipeline.core.parquet_images import ParquetRows, of_one_split, parquet_files
from pipeline.core.test_sets import FASHION_MNIST, SetSpec, known_sets
from pipeline.core.user_files import file_marks, kept_sha256, user_path

NO_CLASS = -1
"""Label of an image that shows none of the classes."""
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What PIL raises about a file that is no image, or not a whole one."""


class LabelledImages(ABC):
    """Real images with labels in the class table's order.

    Attributes:
        name: for people.
        fingerprint: sha256 of what it holds, 64 hex digits.
        labels: int64 [N]; `NO_CLASS` throughout for an anomaly set.
        left_out: in words, what lies there but is not scored; empty when nothing.
    """

    name: str
    fingerprint: str
    labels: NDArray[np.int64]
    left_out: str

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `InputError` naming the file when it cannot be read."""

    def batches(
        self, batch_size: int, input_size: int, resize: int | None = None, start: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(images float32 [n, 3, input_size, input_size] ready for the model, labels int64 [n]) of all, in order.

        The last batch may be smaller. `resize` is that of `eval_transform`; images before position `start` are left
        out.
        """
        for begin in range(start, len(self), batch_size):
            positions = range(begin, min(begin + batch_size, len(self)))
            images = self._transformed(positions, lambda batch: eval_transform(batch, input_size, resize))
            yield images, torch.from_numpy(self.labels[begin : positions.stop])

    def crops(self, positions: Sequence[int], input_size: int, resize: int | None = None) -> NDArray[np.uint8]:
        """What the classifier sees of some images, as pixels: uint8 [n, input_size, input_size, 3]."""
        found = self._transformed(positions, lambda batch: eval_crop(batch, input_size, resize))
        pixels: NDArray[np.uint8] = found.numpy()
        return pixels

    def _transformed(self, positions: Sequence[int], transform: Callable[[Tensor], Tensor]) -> Tensor:
        """Sizes may differ, so each image is resized and cropped alone."""

        def load(position: int) -> Tensor:
            return transform(torch.from_numpy(self.image(position))[None])

        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            return torch.cat(list(pool.map(load, positions)))


@dataclass(frozen=True)
class ArrayImages(LabelledImages):
    """Images of one size in memory, uint8 [N, H, W, 3]."""

    name: str
    fingerprint: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    left_out: str = ""

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]."""
        image: NDArray[np.uint8] = self.images[position]
        return image

    def _transformed(self, positions: Sequence[int], transform: Callable[[Tensor], Tensor]) -> Tensor:
        return transform(torch.from_numpy(self.images[np.asarray(positions)]))


@dataclass(frozen=True)
class FolderImages(LabelledImages):
    """Image files, sorted by class, then by name; read when they are asked for."""

    name: str
    fingerprint: str
    files: Sequence[Path]
    labels: NDArray[np.int64]
    left_out: str = ""

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `InputError` naming the file when it cannot be read."""
        path = self.files[position]
        try:
            return read_rgb(path)
        except UNREADABLE as error:
            raise InputError(f"test image {str(path)!r} cannot be read ({error}); replace or remove it") from error


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The image in a file, uint8 [H, W, 3]. Raises one of `UNREADABLE`."""
    with Image.open(path) as file:
        image: NDArray[np.uint8] = np.array(file.convert("RGB"))
    return image


@dataclass(frozen=True)
class ParquetImages(LabelledImages):
    """Images in Parquet files; `kept` are the rows that are scored, int64 [N]."""

    name: str
    fingerprint: str
    rows: ParquetRows
    kept: NDArray[np.int64]
    labels: NDArray[np.int64]
    left_out: str = ""

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `InputError` naming file and row when it cannot be read."""
        return self.rows.image(int(self.kept[position]))


def open_images(spec: SetSpec, where: str, classes: ClassTable) -> LabelledImages:
    """The images of a folder or Parquet file that show classes of a run; those of other classes are left out.

    Raises:
        InputError: no layout that is read, a class without images, or no class of the run at all.
    """
    root = user_path(where, "test set")
    if files := parquet_files(root):
        return _from_parquet(spec, where, files, classes)
    return _from_folder(spec, where, root, classes)


def open_fashion_mnist(classes: ClassTable, data_dir: str | None) -> LabelledImages:
    """Fashion-MNIST's 10,000 test images. Raises `InputError` for other classes, or when it is not there."""
    own = load_class_table(FASHION_MNIST)
    if classes.wnids != own.wnids:
        raise InputError(
            f"evaluate.test_set is {FASHION_MNIST}, but the {len(classes)} classes of the run are not its {len(own)}; "
            "set evaluate.test_set to a folder with one sub-folder per WNID"
        )
    images, labels = load_fashion_mnist(data_dir, "test")
    return ArrayImages(FASHION_MNIST, content_hash(IDX_SHA256), as_rgb32(images), labels.astype(np.int64))


def _from_folder(spec: SetSpec, where: str, root: Path, classes: ClassTable) -> LabelledImages:
    listing = list_images(root, spec.numbered_by)
    if spec.metric == "anomaly":
        files = [path for paths in listing.values() for path in paths]
        labels, left_out = np.full(len(files), NO_CLASS, dtype=np.int64), ""
        if not files:
            raise InputError(f"test set {where!r} holds no images; fill it")
    else:
        counts = {wnid: len(paths) for wnid, paths in listing.items()}
        wanted, left_out = _chosen(spec, where, counts, classes)
        by_class = [listing[classes.wnids[label]] for label in wanted]
        files = [path for paths in by_class for path in paths]
        labels = np.repeat(np.array(wanted, dtype=np.int64), [len(paths) for paths in by_class])
    names = [[str(path.relative_to(root)), *mark] for path, mark in zip(files, file_marks(files), strict=True)]
    return FolderImages(where, content_hash([names, labels.tolist()]), files, labels, left_out)


def _from_parquet(spec: SetSpec, where: str, every_file: Sequence[Path], classes: ClassTable) -> LabelledImages:
    files, other_files = of_one_split(every_file)
    rows = ParquetRows(files)
    names = [[path.name, kept_sha256(path)] for path in files]
    if spec.metric == "anomaly":
        if not rows.total:
            raise InputError(f"test set {where!r} holds no images; fill it")
        every = np.arange(rows.total, dtype=np.int64)
        return ParquetImages(where, content_hash(names), rows, every, np.full_like(every, NO_CLASS), other_files)
    wnids = np.array(rows.wnids(spec.numbered_by or classes.wnids))
    counts = dict(zip(*(column.tolist() for column in np.unique(wnids, return_counts=True)), strict=True))
    wanted, left_out = _chosen(spec, where, counts, classes)
    label_of = {classes.wnids[label]: label for label in wanted}
    kept = np.flatnonzero(np.isin(wnids, list(label_of)))
    labels = np.array([label_of[wnid] for wnid in wnids[kept]], dtype=np.int64)
    said = " and ".join(part for part in (other_files, left_out) if part)
    return ParquetImages(where, content_hash([names, labels.tolist()]), rows, kept, labels, said)


def _known_by_its_classes(counts: Collection[str]) -> str:
    """Which known set this is, in words; empty when it is none."""
    names = [name for name, spec in known_sets().items() if spec.metric == "accuracy" and spec.wnids]
    same = [name for name in names if set(known_sets()[name].wnids or ()) == set(counts)]
    if not same:
        return ""
    return (
        f"; these are the classes of {same[0]}: give it by that name, --set evaluate.test_sets.{same[0]}=FOLDER "
        f"and, as the main set, --set evaluate.test_set={same[0]}"
    )


def _chosen(spec: SetSpec, where: str, counts: dict[str, int], classes: ClassTable) -> tuple[list[int], str]:
    """Labels to score and, in words, what is left out. Raises `InputError` unless each has images."""
    wanted = spec.labels(classes)
    if not wanted:
        raise InputError(f"test set {where!r} shows none of the {len(classes)} classes of the run; leave it out")
    missing = [classes.wnids[label] for label in wanted if classes.wnids[label] not in counts]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(
            f"test set {where!r} lacks a sub-folder for {shown}; it must have images of each of the {len(wanted)} "
            f"classes that it shares with the class table{_known_by_its_classes(counts)}"
        )
    for label in wanted:
        if not counts[classes.wnids[label]]:
            raise InputError(f"test set {where!r}: sub-folder {classes.wnids[label]} holds no images; fill it")
    kept = {classes.wnids[label] for label in wanted}
    others = {wnid: count for wnid, count in counts.items() if wnid not in kept}
    if not others:
        return wanted, ""
    return wanted, f"{sum(others.values()):,} images of {len(others)} classes that the model does not have"
