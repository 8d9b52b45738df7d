"""Real Fashion-MNIST: where it is found, and its arrays.

Zalando's 28x28 grey images of ten garments, 60,000 to train and 10,000 to test (Xiao, Rasul, Vollgraf 2017,
arXiv:1708.07747; licence MIT).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.debian import run_command, unpack_debian_packages
from pipeline.core.errors import InputError, MissingDataError, WorkError
from pipeline.core.user_files import user_path

Split = Literal["train", "test"]

DATA_VARIABLE = "SYNTHCLONES_DATA"
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
NUM_IMAGES: dict[Split, int] = {"train": 60_000, "test": 10_000}
DOWNLOAD_TIMEOUT_S = 300
CONNECT_TIMEOUT_S = 15

# Of the unpacked IDX files: the .gz around them differ (Debian's leave the name and date out of the gzip header).
IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def cache_directory() -> Path:
    """Where fetched data lies: `$XDG_CACHE_HOME/synthclones`, by default `~/.cache/synthclones`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "synthclones"


def find_fashion_mnist(data_dir: str | None = None) -> Path:
    """The folder with Fashion-MNIST's four .gz files, each checked by its sha256; fetched when no folder has them.

    The order: the user's path, Debian's package directory, torchvision's download, Debian's package unpacked without
    root. What was fetched once is found in the cache. A user's path that is wrong is an error, never passed over.

    Args:
        data_dir: the user's path; default: the environment variable SYNTHCLONES_DATA.

    Raises:
        MissingDataError: no place has the data; the message lists each with the reason, and what to do.
    """
    chosen = data_dir or os.environ.get(DATA_VARIABLE)
    if chosen:
        directory = user_path(chosen, "data_dir" if data_dir else DATA_VARIABLE)
        if problem := find_problem(directory):
            raise MissingDataError(
                f"no Fashion-MNIST in {str(directory)!r}: {problem}; give the folder of its four .gz files"
            )
        return directory
    torchvision_root = cache_directory() / "fashion-mnist" / "torchvision"
    torchvision_directory = torchvision_root / "FashionMNIST" / "raw"
    unpacked_root = cache_directory() / "fashion-mnist" / "debian"
    unpacked_directory = unpacked_root / DEBIAN_DIRECTORY.relative_to("/")
    for directory in (DEBIAN_DIRECTORY, torchvision_directory, unpacked_directory):
        if find_problem(directory) is None:
            return directory
    tried = [f"{DEBIAN_DIRECTORY}: {find_problem(DEBIAN_DIRECTORY)}"]
    fetches: list[tuple[str, Path, Callable[[], None]]] = [
        ("torchvision's download", torchvision_directory, lambda: _download_with_torchvision(torchvision_root)),
        (
            f"Debian's package {DEBIAN_PACKAGE}",
            unpacked_directory,
            lambda: unpack_debian_packages([DEBIAN_PACKAGE], unpacked_root),
        ),
    ]
    for name, directory, fetch in fetches:
        try:
            fetch()
            problem = find_problem(directory)
        except WorkError as error:
            problem = str(error)
        if problem is None:
            return directory
        tried.append(f"{name}: {problem}")
    raise MissingDataError(
        f"Fashion-MNIST was not found. Tried {'; '.join(tried)}. Install Debian's package {DEBIAN_PACKAGE}, or put its "
        f"four .gz files into a folder and give it as data_dir (--set data_dir=PATH) or as {DATA_VARIABLE}"
    )


def find_problem(directory: Path) -> str | None:
    """Why a folder cannot serve as Fashion-MNIST (a missing, unreadable or changed file), or None when it can."""
    for name in IDX_SHA256:
        path = directory / f"{name}.gz"
        try:
            about = path.stat()
            _check_idx(path, about.st_size, about.st_mtime_ns)
        except FileNotFoundError:
            return f"{name}.gz is not there"
        except OSError as error:
            return f"{name}.gz cannot be read ({error.strerror or error})"
        except WorkError as error:
            return str(error)
    return None


def load_fashion_mnist(data_dir: str | None, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The images uint8 [N, 28, 28] (0 is the background, 255 the brightest garment) and labels uint8 [N] of a split.

    Args:
        data_dir: as for `find_fashion_mnist`, which may fetch the data. Raises `InputError` like it.
        split: `train` (N = 60,000) or `test` (N = 10,000), in file order.
    """
    directory = find_fashion_mnist(data_dir)
    stem = "train" if split == "train" else "t10k"
    count = NUM_IMAGES[split]
    images = np.frombuffer(_read_idx(directory / f"{stem}-images-idx3-ubyte.gz"), np.uint8, offset=16)
    labels = np.frombuffer(_read_idx(directory / f"{stem}-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    return images.reshape(count, 28, 28).copy(), labels.copy()  # a view of bytes is read-only: torch warns of it


def as_rgb32(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey uint8 [N, 28, 28] as the classifier sees it: uint8 [N, 32, 32, 3], 2 black pixels around, channels equal."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[..., np.newaxis], 3, axis=3)


def class_prefix(labels: NDArray[np.uint8], images_per_class: int) -> NDArray[np.int64]:
    """Positions of the first `images_per_class` images of each class, int64 [classes * images_per_class].

    Index-major like the rows of an image set: the first image of every class, then the second of every class, so the
    subset for a smaller number is a prefix of the one for a larger.

    Raises:
        InputError: a class has fewer images.
    """
    positions = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    fewest = min(len(found) for found in positions)
    if not 0 < images_per_class <= fewest:
        raise InputError(f"images_per_class must be 1 to {fewest} for real images (got {images_per_class}); lower it")
    return np.stack([found[:images_per_class] for found in positions], axis=1).reshape(-1)


def _read_idx(path: Path) -> bytes:
    """The unpacked bytes of one of the four files. Raises `OSError`; `WorkError` when they are not the known ones."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise WorkError(f"{path.name} is damaged ({error})") from error
    if hashlib.sha256(content).hexdigest() != IDX_SHA256[path.stem]:
        raise WorkError(f"{path.name} is not the published file (its sha256 differs)")
    return content


@lru_cache(maxsize=64)
def _check_idx(path: Path, _size: int, _mtime_ns: int) -> None:
    """`_read_idx` for its errors, once for each state of a file that has none: unpacking all four takes a second."""
    _read_idx(path)


def _download_with_torchvision(root: Path) -> None:
    """torchvision's download into `root`, in a process of its own: torchvision waits for a silent host without end."""
    program = (
        "import socket, sys\n"
        f"socket.setdefaulttimeout({CONNECT_TIMEOUT_S})\n"
        "from torchvision.datasets import FashionMNIST\n"
        "FashionMNIST(sys.argv[1], download=True)\n"
    )
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"cannot write {error.filename or root}: {error.strerror}") from error
    run_command([sys.executable, "-c", program, str(root)], root, DOWNLOAD_TIMEOUT_S)
