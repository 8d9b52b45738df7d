"""Labelled images in Parquet as hubs give them: a column `image` of {bytes, path}, and `wnid` or `label`."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.errors import InputError

_WNID = re.compile(r"n[0-9]{8}")
_SPLITS = ("validation", "valid", "val", "test", "train")
"""As hubs call them, in the order in which they are taken: a hub's test labels may be hidden (ImageNet's are -1)."""


class ParquetRows:
    """The rows of one or more Parquet files, read one row group at a time.

    Args:
        files: in order.

    Raises:
        InputError: a file cannot be read, or lacks the columns.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._parts: list[tuple[int, int, int]] = []  # file, row group, first row
        self._first: list[int] = []
        self.total = 0
        for number, path in enumerate(self.files):
            file = _opened(path)
            if "image" not in file.schema_arrow.names:
                raise _lacking(path, file.schema_arrow.names)
            metadata = file.metadata
            for group in range(metadata.num_row_groups):
                self._parts.append((number, group, self.total))
                self._first.append(self.total)
                self.total += metadata.row_group(group).num_rows
        self._lock = Lock()
        self._held: tuple[int, list[Any]] = (-1, [])

    def wnids(self, numbered_by: Sequence[str]) -> list[str]:
        """The WNID of every row.

        Args:
            numbered_by: what whole-number labels mean, unless the file's own names of its labels are WNIDs.

        Raises:
            InputError: neither `wnid` nor `label`, or a label that means nothing.
        """
        found: list[str] = []
        for path in self.files:
            file = _opened(path)
            names = file.schema_arrow.names
            column = next((name for name in ("wnid", "label") if name in names), None)
            if column is None:
                raise _lacking(path, names)
            with _readable(path):
                values = file.read([column]).column(column).to_pylist()
            meaning = _named_labels(file) or numbered_by
            for row, value in enumerate(values):
                if isinstance(value, int) and 0 <= value < len(meaning):
                    found.append(meaning[value])
                elif isinstance(value, str) and _WNID.fullmatch(value):
                    found.append(value)
                else:
                    raise InputError(
                        f"{str(path)!r} row {row}: {column} {value!r:.40} is no WNID and no number below {len(meaning)}"
                    )
        return found

    def image(self, row: int) -> NDArray[np.uint8]:
        """The picture of a row, uint8 [H, W, 3]. Raises `InputError` naming file and row when it cannot be read."""
        part = int(np.searchsorted(self._first, row, side="right")) - 1
        number, group, first = self._parts[part]
        with self._lock:
            if self._held[0] != part:
                path = self.files[number]
                with _readable(path):
                    column = _opened(path).read_row_group(group, ["image"]).column("image")
                    self._held = (part, column.to_pylist())
            value = self._held[1][row - first]
        data = value.get("bytes") if isinstance(value, dict) else value
        data = data if isinstance(data, bytes) else b""
        where = f"{str(self.files[number])!r} row {row - self._file_start(number)}"
        if not data:
            raise InputError(f"{where} holds no image bytes; remove it")
        try:
            with Image.open(io.BytesIO(data)) as file:
                image: NDArray[np.uint8] = np.array(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{where} holds no readable image ({error}); replace or remove it") from error
        return image

    def _file_start(self, number: int) -> int:
        return next(first for file, _, first in self._parts if file == number)


def _lacking(path: Path, names: Sequence[str]) -> InputError:
    return InputError(f"{str(path)!r} has columns {', '.join(names)}; it needs image and wnid or label")


def parquet_files(where: Path) -> list[Path]:
    """The Parquet files at a path: itself, or those in it or in its `data`; empty when there are none."""
    if where.is_file():
        return [where] if where.suffix == ".parquet" else []
    return sorted(where.glob("*.parquet")) or sorted((where / "data").glob("*.parquet"))


def of_one_split(files: Sequence[Path]) -> tuple[list[Path], str]:
    """The files to score of a hub's snapshot, and in words what is left out: its names begin with the split's.

    Where there are several of `_SPLITS`, the first of them; else all files.
    """
    by_split = {split: [path for path in files if re.match(rf"{split}[-_.]", path.name)] for split in _SPLITS}
    present = {split: found for split, found in by_split.items() if found}
    if len(present) < 2:
        return list(files), ""
    chosen = next(iter(present))
    others = [split for split in present if split != chosen]
    return present[chosen], f"{len(files) - len(present[chosen])} .parquet files beside {chosen} ({', '.join(others)})"


def _opened(path: Path) -> Any:
    with _readable(path):
        return pq.ParquetFile(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, pa.ArrowException) as error:
        said = " ".join(str(error).split())[:160]
        raise InputError(f"{str(path)!r} is no readable Parquet file ({said}); replace or remove it") from error


def _named_labels(file: Any) -> list[str] | None:
    """The names that `datasets` keeps for whole-number labels, when they are WNIDs."""
    try:
        about = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = about["info"]["features"]["label"]["names"]
        return names if names and all(_WNID.fullmatch(name) for name in names) else None
    except (ValueError, KeyError, TypeError):  # a note of another form: it names nothing
        return None
