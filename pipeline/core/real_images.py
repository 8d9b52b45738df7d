"""Labelled real images to score on: Fashion-MNIST's test split, or a folder with one sub-folder per WNID."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.core.augment import eval_transform
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.datasets import IDX_SHA256, as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash

FASHION_MNIST = "fashion_mnist"


class LabelledImages(Protocol):
    """Real images with labels in the class table's order."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def fingerprint(self) -> str:
        """sha256 of what it holds, 64 hex digits."""
        ...

    def __len__(self) -> int: ...

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `InputError` naming the file when it cannot be read."""
        ...

    def batches(self, batch_size: int, input_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(images float32 [n, 3, input_size, input_size] ready for the model, labels int64 [n]) of all, in order."""
        ...


def open_test_set(name_or_folder: str, classes: ClassTable, data_dir: str | None = None) -> LabelledImages:
    """The test set of a config.

    Args:
        name_or_folder: `fashion_mnist`, or a folder with one sub-folder per WNID of the class table.
        classes: gives the label of each WNID.
        data_dir: folder of Fashion-MNIST; default as in `datasets.find_fashion_mnist`.

    Raises:
        InputError: the set is not there, or its classes are not the table's.
    """
    if name_or_folder != FASHION_MNIST:
        return FolderImages.open(name_or_folder, classes)
    own = load_class_table(FASHION_MNIST)
    if classes.wnids != own.wnids:
        raise InputError(
            f"evaluate.test_set is {FASHION_MNIST}, but the {len(classes)} classes of the run are not its {len(own)}; "
            "set evaluate.test_set to a folder with one sub-folder per WNID"
        )
    images, labels = load_fashion_mnist(data_dir, "test")
    return ArrayImages(FASHION_MNIST, content_hash(IDX_SHA256), as_rgb32(images), labels.astype(np.int64))


@dataclass(frozen=True)
class ArrayImages:
    """Images of one size in memory.

    Args:
        name: for people.
        fingerprint: sha256 of what it holds, 64 hex digits.
        images: uint8 [N, H, W, 3].
        labels: int64 [N].
    """

    name: str
    fingerprint: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]."""
        image: NDArray[np.uint8] = self.images[position]
        return image

    def batches(self, batch_size: int, input_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages`; the last batch may be smaller."""
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield eval_transform(torch.from_numpy(self.images[part]), input_size), torch.from_numpy(self.labels[part])


@dataclass(frozen=True)
class FolderImages:
    """Image files in one folder per class, read when they are asked for.

    Args:
        name: the folder.
        fingerprint: sha256 of the files' names and sizes in bytes.
        files: sorted by class, then by name.
        labels: int64 [N].
    """

    name: str
    fingerprint: str
    files: Sequence[Path]
    labels: NDArray[np.int64]

    @classmethod
    def open(cls, folder: str, classes: ClassTable) -> FolderImages:
        """List a folder. Raises `InputError` unless its sub-folders are the table's WNIDs, each with files."""
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise InputError(
                f"test set {folder!r} is no folder; give evaluate.test_set=fashion_mnist or a folder with one "
                "sub-folder per WNID"
            )
        found = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")}
        for problem, names in (
            ("lacks a sub-folder for", set(classes.wnids) - found),
            ("has sub-folders that are not in the class table:", found - set(classes.wnids)),
        ):
            if names:
                shown = ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
                raise InputError(
                    f"test set {folder!r} {problem} {shown}; it must have exactly one sub-folder for each of the "
                    f"{len(classes)} WNIDs of the class table"
                )
        by_class = [sorted(p for p in (root / w).iterdir() if not p.name.startswith(".")) for w in classes.wnids]
        for wnid, paths in zip(classes.wnids, by_class, strict=True):
            if not paths:
                raise InputError(f"test set {folder!r}: sub-folder {wnid} holds no images; fill it")
        files = [path for paths in by_class for path in paths]
        listing = [[str(path.relative_to(root)), path.stat().st_size] for path in files]
        labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(paths) for paths in by_class])
        return cls(folder, content_hash(listing), files, labels)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `InputError` naming the file when it cannot be read."""
        path = self.files[position]
        try:
            with Image.open(path) as file:
                image: NDArray[np.uint8] = np.array(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"test image {str(path)!r} cannot be read ({error}); replace or remove it") from error
        return image

    def batches(self, batch_size: int, input_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `LabelledImages`; sizes may differ, so each image is resized and cropped alone."""

        def load(position: int) -> Tensor:
            return eval_transform(torch.from_numpy(self.image(position))[None], input_size)

        with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
            for start in range(0, len(self), batch_size):
                positions = range(start, min(start + batch_size, len(self)))
                yield torch.cat(list(pool.map(load, positions))), torch.from_numpy(self.labels[start : positions.stop])
