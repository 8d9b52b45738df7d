"""Background tables: the scenes that a template's `b` is drawn from."""

from __future__ import annotations

import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.core.small_tables import read_small_table, table_path

NAME_SCHEMA = pa.schema([pa.field("name", pa.string(), nullable=False)])
"""The column that is read; the table that ships has `background_index` int32 and `indoor` bool beside it."""


def load_backgrounds(name_or_path: str) -> list[str]:
    """Scene names of a background table that ships (by name) or of a .parquet (path or URI), in the table's order.

    Raises:
        InputError: unknown name, unreadable file, no `name` column, no rows, an empty name or one twice.
    """
    path = table_path(name_or_path, "backgrounds", "background")
    scenes: list[str] = read_small_table(path, NAME_SCHEMA, "it needs one text column `name`")["name"].to_pylist()
    if not scenes or not all(scenes):
        raise InputError(f"background table {path!r} holds {'an empty name' if scenes else 'no rows'}; mend it")
    if len(set(scenes)) != len(scenes):
        twice = next(scene for scene in scenes if scenes.count(scene) > 1)
        raise InputError(f"background table {path!r} holds {twice!r} twice; list every scene once")
    return scenes
