"""Small Parquet tables that a user names: those that ship, by name, and their own, by path or URI."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pipeline.core.artifact import Store
from pipeline.core.config_loading import nearest
from pipeline.core.errors import InputError, WorkError

ASSETS = Path(__file__).parent.parent / "assets"


def table_path(name_or_path: str, folder: str, kind: str) -> str:
    """The path of a table of `assets/<folder>` by its name; a text that ends in `.parquet` is a path already.

    Raises:
        InputError: no such table ships.
    """
    if name_or_path.endswith(".parquet"):
        return name_or_path
    names = sorted(file.stem for file in (ASSETS / folder).glob("*.parquet"))
    if name_or_path not in names:
        hint = nearest(name_or_path, names)
        raise InputError(f"{kind} table {name_or_path!r} does not ship{hint}, or give the path of a .parquet")
    return str(ASSETS / folder / f"{name_or_path}.parquet")


def read_small_table(path: str, schema: pa.Schema, mend: str) -> pa.Table:
    """The columns of `schema` of a Parquet file, local or URI, with the file's metadata.

    Args:
        path: the file.
        schema: the columns; each must be there, of a type that casts, without nulls where it is not nullable.
        mend: how to get a right file; ends every message.

    Raises:
        InputError: no such file, no Parquet, or wrong columns.
    """
    folder, separator, name = path.rpartition("/")
    try:
        table = Store.open(folder or separator or ".").read_table(name)
    except FileNotFoundError:
        raise InputError(f"table {path!r} does not exist; check the path ({mend})") from None
    except (WorkError, OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"table {path!r} cannot be read: {error}; {mend}") from error
    if missing := [field.name for field in schema if field.name not in table.schema.names]:
        raise InputError(f"table {path!r} lacks the column(s) {', '.join(missing)}; {mend}")
    for field in schema:
        found = table.schema.field(field.name).type
        if pa.types.is_string(field.type) and (pa.types.is_integer(found) or pa.types.is_floating(found)):
            raise InputError(f"table {path!r} has numbers in the text column {field.name!r}; {mend}")
    try:
        return table.select(schema.names).cast(schema.with_metadata(table.schema.metadata))
    except (pa.ArrowException, ValueError) as error:
        raise InputError(f"table {path!r} has a column of a wrong type or with nulls: {error}; {mend}") from error
