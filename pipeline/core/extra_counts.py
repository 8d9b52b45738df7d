"""How many extra images each class shall have: in a config, in a file that a user gives, and as an array."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError

if TYPE_CHECKING:  # the config imports this module
    from pipeline.core.classes import ClassTable

MAX_EXTRA = 1_000_000
"""Extra images of one class; more is a slip of the hand."""
ExtraImages = tuple[tuple[str, int], ...]
"""(WNID, number) of every class that has any, by WNID: hashable and one value for one meaning."""
NO_EXTRAS: NDArray[np.int64] = np.zeros(0, np.int64)
_MEND = "give the columns `class` (a WNID or a class's name) and `images`, or a mapping of the two"


def parse_extra_images(value: Any) -> ExtraImages:
    """A mapping WNID -> number, without the zeros. Raises `ValueError` with the mend."""
    try:
        pairs = [(str(wnid), count) for wnid, count in (value.items() if isinstance(value, Mapping) else value)]
    except (TypeError, ValueError) as error:
        raise ValueError("must be a mapping of WNIDs to numbers, e.g. {n02774152: 100}") from error
    found = {wnid: _number(count) for wnid, count in pairs}
    return tuple(sorted((wnid, count) for wnid, count in found.items() if count))


def as_mapping(extra: ExtraImages) -> dict[str, int]:
    """What `parse_extra_images` reads."""
    return dict(extra)


def _number(value: Any) -> int:
    """A number of images. Raises `ValueError`."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a number of images is a whole one, not {value!r:.40}")  # noqa: TRY004 - for the user
    if not 0 <= value <= MAX_EXTRA:
        raise ValueError(f"a number of extra images must lie between 0 and {MAX_EXTRA:,}, not {value}")
    return value


def counts_by_class(extra: ExtraImages, classes: ClassTable) -> NDArray[np.int64]:
    """Extra images of every class, int64 [classes]; empty for none at all. Raises `InputError` on a foreign WNID."""
    if not extra:
        return NO_EXTRAS
    counts = np.zeros(len(classes), np.int64)
    label_of = {wnid: label for label, wnid in enumerate(classes.wnids)}
    for wnid, count in extra:
        if wnid not in label_of:
            raise InputError(
                f"train.extra_images: {wnid!r} is no class of the run's {len(classes)}; its keys are their WNIDs"
            )
        counts[label_of[wnid]] = count
    return counts


def read_extra_images(path: str, classes: ClassTable) -> ExtraImages:
    """A user's file of extra images per class: .csv with a header line, or .json, .yaml, .yml with one mapping.

    Args:
        path: local path or URI. Further columns of a .csv are passed over.
        classes: of the run; a class is named by its WNID or by its name.

    Raises:
        InputError: the file is not there or of another form, a class is unknown or stands twice, a number is none or is
            too large, or no class shall have any.
    """
    wnids = classes.wnids
    known = dict(zip([*classes.names, *wnids], [*wnids, *wnids], strict=True))
    found: dict[str, int] = {}
    for where, name, number in _lines(path):
        if name not in known:
            from pipeline.core.config_loading import nearest  # which imports the config

            hint = nearest(str(name), known) if len(known) <= 40 else "; give a WNID or a name of the class table"
            raise InputError(f"{path!r}{where}: {name!r:.60} is no class of the run{hint}")
        if known[name] in found:
            raise InputError(f"{path!r}{where}: class {name!r} stands twice; leave one of the two")
        try:
            found[known[name]] = _number(number)
        except ValueError as error:
            raise InputError(f"{path!r}{where}, class {name!r}: {error}; mend it") from error
    extra = parse_extra_images(found)
    if not extra:
        raise InputError(f"{path!r} asks for no image of any class; {_MEND}")
    return extra


def _lines(path: str) -> Iterable[tuple[str, Any, Any]]:
    """(place in the file, class, number) of every line. Raises `InputError`."""
    from pipeline.core.artifact import Store
    from pipeline.core.config_loading import parse_mapping

    folder, separator, name = path.rpartition("/")
    try:
        text = Store.open(folder or separator or ".").read_bytes(name).decode()
    except FileNotFoundError:
        raise InputError(f"--per-class {path!r} does not exist; check the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"--per-class {path!r} is no text ({error.reason}); {_MEND}") from error
    kind = PurePath(name).suffix
    if kind in (".json", ".yaml", ".yml"):
        return [("", key, value) for key, value in parse_mapping(text, path).items()]
    if kind != ".csv":
        raise InputError(f"--per-class {path!r} must end in .csv, .json, .yaml or .yml")
    rows = csv.DictReader(io.StringIO(text))
    try:
        return _rows(rows, path)
    except csv.Error as error:
        raise InputError(f"{path!r} is no CSV at line {rows.line_num} ({error}); {_MEND}") from error


def _rows(rows: csv.DictReader[str], path: str) -> list[tuple[str, Any, Any]]:
    column = next((name for name in ("wnid", "class") if name in (rows.fieldnames or ())), None)
    if column is None or "images" not in (rows.fieldnames or ()):
        raise InputError(f"{path!r} has the columns {_shown(rows.fieldnames)}; {_MEND}")
    return [(f" line {rows.line_num}", row[column], row["images"]) for row in rows]


def _shown(names: Sequence[str] | None) -> str:
    return ", ".join(map(repr, names or ()))[:80] or "none"
