"""Background tables."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.errors import InputError
from pipeline.core.small_tables import ASSETS


def test_places365_holds_the_365_published_scenes() -> None:
    scenes = load_backgrounds("places365")
    assert len(scenes) == 365
    assert scenes[:2] == ["airfield", "airplane cabin"]
    digest = hashlib.sha256("\n".join(scenes).encode()).hexdigest()
    assert digest == "fc8b2453c62c75e953e4382a7e6a8db6070f0575334cf764026126a9d788be8d"


def test_places365_names_its_source_and_what_is_indoors() -> None:
    table = pq.read_table(ASSETS / "backgrounds" / "places365.parquet")
    assert b"CSAILVision/places365" in table.schema.metadata[b"source"]
    assert table.schema.field("indoor").type == pa.bool_()
    assert table["background_index"].to_pylist() == list(range(365))


def test_a_users_table_needs_names_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"name": ["kitchen", "a/b {{ c }}\n\0"]}), tmp_path / "mine.parquet")
    assert load_backgrounds(str(tmp_path / "mine.parquet")) == ["kitchen", "a/b {{ c }}\n\0"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"scene": ["kitchen"]}, "lacks the column"),
        ({"name": [1.5]}, "numbers in the text column"),
        ({"name": [["kitchen"]]}, "wrong type"),
        ({"name": ["kitchen", None]}, "nulls"),
        ({"name": ["kitchen", ""]}, "an empty name"),
        ({"name": pa.array([], pa.string())}, "no rows"),
        ({"name": ["kitchen", "beach", "kitchen"]}, "'kitchen' twice"),
    ],
)
def test_a_wrong_table_is_an_error(tmp_path: Path, columns: dict[str, list[object]], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "mine.parquet")
    with pytest.raises(InputError, match=message):
        load_backgrounds(str(tmp_path / "mine.parquet"))


@pytest.mark.parametrize("name", ["places36", "", "../places365", "missing/x.parquet"])
def test_an_unknown_table_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match="does not (ship|exist)"):
        load_backgrounds(name)
