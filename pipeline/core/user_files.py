"""Paths that a user names, and what a file there holds: `~`, names that no file can have, and content beyond size."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from hashlib import sha256
from itertools import chain
from pathlib import Path

from pipeline.core.errors import InputError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""Lower case; files of other names are no images (`Thumbs.db`, `desktop.ini`, lists)."""
_OF_ANY_CONTENT = frozenset({".bmp", ".pgm", ".ppm", ".tif", ".tiff"})
"""Formats whose files are as large whatever they show."""
_SMALL_BYTES = 64 * 1024
_FILES_AT_A_TIME = 64  # of a thread: a task for each file would cost more than reading a small one


def user_path(text: str, key: str) -> Path:
    """A path as a user wrote it, with `~` meant as the home directory. `key` is what named it, for the message.

    Raises `InputError` for another user's home that is not known, and for what no file can be called.
    """
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{key} {shown!r} is no path ({why}); write it out") from error
    return path


def is_image(path: Path) -> bool:
    """Named as an image file is."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def file_sha256(path: Path) -> str:
    """sha256 of a file's content, 64 hex digits. Raises `OSError`."""
    digest = sha256()
    with path.open("rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def kept_sha256(path: Path) -> str:
    """`file_sha256` of a large file that is opened often: read once, and again when its size or time changes.

    Raises `OSError`.
    """
    about = path.stat()
    return _sha256_at(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256_at(path: Path, _size: int, _mtime_ns: int) -> str:
    return file_sha256(path)


def file_marks(files: Sequence[Path]) -> list[list[int | str]]:
    """What tells each file's content from another's: its size in bytes, and sha256 where that says too little.

    A compressed picture of more than 64 KiB is told by its size, since one that shows something else is as good as
    never as large; smaller files and formats without compression are read whole.

    Raises `OSError` when a file is not there.
    """
    sizes = [path.stat().st_size for path in files]
    read = [
        at
        for at, (path, size) in enumerate(zip(files, sizes, strict=True))
        if size <= _SMALL_BYTES or path.suffix.lower() in _OF_ANY_CONTENT
    ]
    marks: list[list[int | str]] = [[size] for size in sizes]
    parts = [read[start : start + _FILES_AT_A_TIME] for start in range(0, len(read), _FILES_AT_A_TIME)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        digests = pool.map(lambda part: [file_sha256(files[at]) for at in part], parts)
        for at, digest in zip(read, chain.from_iterable(digests), strict=True):
            marks[at].append(digest)
    return marks
