"""Class tables: what a classifier's labels are, in label order, as one small Parquet file each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash
from pipeline.core.small_tables import read_small_table, table_path

SOURCE_KEY = b"source"
"""Key of the Parquet metadata that says where the list of classes comes from."""

CLASS_SCHEMA = pa.schema(
    [
        pa.field("class_index", pa.int32(), nullable=False),  # the label: 0, 1, 2, …
        pa.field("class_name", pa.string(), nullable=False),  # short, for people; two classes may share one
        pa.field("wnid", pa.string(), nullable=False),  # the key: WordNet 3.0 noun
        pa.field("synset", pa.string(), nullable=False),  # e.g. bag.n.04
        pa.field("lemmas", pa.list_(pa.string()), nullable=False),  # all words, spaces for underscores
        pa.field("definition", pa.string(), nullable=False),  # gloss without quoted examples
        pa.field("hypernym_wnids", pa.list_(pa.string()), nullable=False),  # direct parents, data.noun's order
        pa.field("hypernym_lemmas", pa.list_(pa.list_(pa.string())), nullable=False),  # all words of each parent
    ]
)
_WNID = re.compile(r"n[0-9]{8}")  # it may become the name of a folder of test images


@dataclass(frozen=True)
class ClassTable:
    """The classes of a run.

    Args:
        rows: one JSON-able dict per class, in label order, keys as in `CLASS_SCHEMA`.
        source: where the list comes from.
    """

    rows: list[dict[str, Any]]
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def wnids(self) -> list[str]:
        """WNIDs in label order, all different."""
        return [row["wnid"] for row in self.rows]

    @property
    def names(self) -> list[str]:
        """Short names for people, all different: classes that share one carry their WNID, `crane (n02012849)`."""
        shared = Counter(row["class_name"] for row in self.rows)
        return [
            row["class_name"] if shared[row["class_name"]] == 1 else f"{row['class_name']} ({row['wnid']})"
            for row in self.rows
        ]

    @property
    def spoken_names(self) -> list[str]:
        """What a model that reads text is asked for, in label order: a shared name with its hypernym's first word.

        Names that differ in capitals alone are shared ones: CLIP reads none.
        """
        shared = Counter(row["class_name"].lower() for row in self.rows)
        return [
            ", ".join([row["class_name"], *(words[0] for words in row["hypernym_lemmas"][:1])])
            if shared[row["class_name"].lower()] > 1
            else row["class_name"]
            for row in self.rows
        ]

    @property
    def hash(self) -> str:
        """sha256 of the rows, 64 hex digits; the source is not in it."""
        return content_hash(self.rows)


def load_class_table(name_or_path: str) -> ClassTable:
    """A class table that ships (by name) or one of jobs.build_classes (by path or URI of its .parquet).

    Raises:
        InputError: unknown name, unreadable file, wrong columns or wrong content; nothing of it is used.
    """
    path = table_path(name_or_path, "classes", "class")
    table = read_small_table(path, CLASS_SCHEMA, "jobs.build_classes makes one")
    classes = ClassTable(table.to_pylist(), (table.schema.metadata or {}).get(SOURCE_KEY, b"").decode(errors="replace"))
    check_rows(classes.rows, repr(path))
    return classes


def check_rows(rows: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raise `InputError` unless the rows are a class table.

    At least one class, labels 0..n-1, WNIDs well-formed and different, name, words and definition not empty, as many
    parents as WNIDs of parents, none of them without words.
    """
    if not rows:
        raise InputError(f"{where} holds no classes; a run needs at least one")
    first_use: dict[str, int] = {}
    for label, row in enumerate(rows):
        wnid, at = row["wnid"], f"{where}: class {label}"
        if row["class_index"] != label:
            raise InputError(f"{at} has class_index {row['class_index']}; sort the table so that it counts 0, 1, 2, …")
        if not _WNID.fullmatch(wnid):
            raise InputError(f"{at} has the WNID {wnid!r}; one is `n` and 8 digits, e.g. n02774152")
        if wnid in first_use:
            raise InputError(f"{at} repeats {wnid} of class {first_use[wnid]}; list every class once")
        first_use[wnid] = label
        for key in ("class_name", "definition", "lemmas"):
            if not row[key]:
                raise InputError(f"{at} ({wnid}) has an empty {key}; fill it")
        parents = row["hypernym_lemmas"]
        if len(row["hypernym_wnids"]) != len(parents):
            raise InputError(f"{at} ({wnid}) has hypernym_wnids and hypernym_lemmas of different lengths; mend it")
        if not all(all(words or ()) and words for words in (row["lemmas"], *parents)):
            raise InputError(f"{at} ({wnid}) has an empty lemma; mend it")


def class_table_bytes(table: ClassTable) -> bytes:
    """The Parquet file of a class table, its source in the metadata."""
    schema = CLASS_SCHEMA.with_metadata({SOURCE_KEY: table.source.encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(table.rows, schema=schema), sink, compression="zstd")
    return bytes(sink.getvalue())
