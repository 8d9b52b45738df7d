"""Real training images in folders by WNID, as ImageNet has them: which files a training takes, and what names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core.classes import ClassTable
from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash
from pipeline.core.image_folders import images_in, part_of
from pipeline.core.train_config import TrainConfig
from pipeline.core.user_files import user_path

_SHOWN = 5  # classes named in an error


@dataclass(frozen=True)
class RealFolder:
    """The files of a real twin.

    Args:
        where: the folder, as given.
        files: index-major like the rows of an image set: the first of every class, then the second of every class.
        labels: int64 [N], in the class table's order.
        fewer: WNID -> how many, of classes with fewer than `images_per_class`.
        fingerprint: sha256 of the files' names and sizes, 64 hex digits. Finished models lie under
            it, so content is no part of it as it is of a test set's.
    """

    where: str
    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    fewer: dict[str, int]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.files)


def open_real_folder(settings: TrainConfig, classes: ClassTable, images_per_class: int) -> RealFolder:
    """The first `images_per_class` images of each class, by file name in Unicode order.

    A process looks into a folder once for the same question.

    Args:
        settings: `real_data` has a sub-folder per WNID, in it or in its `train`; other sub-folders are passed over.
            `min_real_per_class` and `max_real_per_class` let classes have fewer and more.
        classes: of the run.
        images_per_class: of each class.

    Raises:
        InputError: no folder, or classes that are missing or have too few images, all counted and some named.
    """
    assert settings.real_data is not None
    fewest = min(settings.min_real_per_class or images_per_class, images_per_class)
    most = settings.max_real_per_class or images_per_class
    if most < fewest:
        raise InputError(
            f"train.max_real_per_class {most} is below the {fewest} images that a class must have "
            "(images_per_class, or train.min_real_per_class); raise it or leave it out, or give a smaller minimum"
        )
    return _open(settings.real_data, tuple(classes.wnids), images_per_class, fewest, most)


@lru_cache(maxsize=32)
def _open(where: str, wnids: tuple[str, ...], images_per_class: int, fewest: int, most: int) -> RealFolder:
    root = user_path(where, "train.real_data")
    if not root.is_dir():
        raise InputError(f"train.real_data {where!r} is no folder; give one with a sub-folder of images per WNID")
    root = part_of(root, "train")
    by_class = [images_in(root / wnid)[:most] if (root / wnid).is_dir() else [] for wnid in wnids]
    counts = {wnid: len(found) for wnid, found in zip(wnids, by_class, strict=True)}
    _check(where, root, counts, images_per_class, fewest)
    pairs = [
        (found[index], label) for index in range(most) for label, found in enumerate(by_class) if index < len(found)
    ]
    files = tuple(path for path, _ in pairs)
    return RealFolder(
        where=where,
        files=files,
        labels=np.array([label for _, label in pairs], np.int64),
        fewer={wnid: count for wnid, count in counts.items() if count < images_per_class},
        fingerprint=content_hash([[str(path.relative_to(root)), path.stat().st_size] for path in files]),
    )


def _check(where: str, root: Path, counts: dict[str, int], images_per_class: int, fewest: int) -> None:
    missing = [wnid for wnid in counts if not (root / wnid).is_dir()]
    few = {wnid: count for wnid, count in counts.items() if wnid not in missing and count < fewest}
    problems = []
    if missing:
        problems.append(f"lacks {len(missing)} of {len(counts)} classes ({_some(missing)})")
    if few:
        shown = _some([f"{wnid}: {count}" for wnid, count in sorted(few.items(), key=lambda item: item[1])])
        problems.append(f"has fewer than {fewest} images of {len(few)} classes ({shown})")
    if not problems:
        return
    remedy = "give the folder that has a sub-folder per WNID of the class table"
    if not missing:
        lowest = min(few.values())
        remedy = f"lower images_per_class (asked: {images_per_class})"
        if lowest:
            remedy += f", or let classes have fewer with --set train.min_real_per_class={lowest}"
    raise InputError(f"train.real_data {where!r} {' and '.join(problems)}; {remedy}")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:_SHOWN]) + (f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else "")
