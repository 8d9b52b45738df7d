"""Class tables: the ones that ship agree with WordNet 3.0, and no wrong one is used."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.class_building import build_class_table
from pipeline.core.classes import CLASS_SCHEMA, ClassTable, check_rows, class_table_bytes, load_class_table
from pipeline.core.errors import InputError
from pipeline.core.wordnet import open_wordnet

FASHION_ENTRIES = [
    "T-shirt/top=jersey.n.03",
    "Trouser=trouser.n.01",
    "Pullover=pullover.n.01",
    "Dress=dress.n.01",
    "Coat=coat.n.01",
    "Sandal=sandal.n.01",
    "Shirt=shirt.n.01",
    "Sneaker=gym_shoe.n.01",
    "Bag=bag.n.04",
    "Ankle boot=boot.n.01",
]
SHIPPED = ["fashion_mnist", "imagenet100", "imagenet1k"]


def save(table: pa.Table, path: Path) -> str:
    pq.write_table(table, path)
    return str(path)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return copy.deepcopy(load_class_table("fashion_mnist").rows)


def test_fashion_mnist_is_its_labels_tied_to_their_senses() -> None:
    built = build_class_table(open_wordnet(), FASHION_ENTRIES, "test")
    assert load_class_table("fashion_mnist").rows == built.rows


@pytest.mark.parametrize("name", ["imagenet100", "imagenet1k"])
def test_imagenet_tables_are_what_wordnet_says_of_their_wnids(name: str) -> None:
    shipped = load_class_table(name)
    assert shipped.rows == build_class_table(open_wordnet(), shipped.wnids, "test").rows


@pytest.mark.parametrize(
    ("name", "count", "sha256"),
    [
        ("imagenet1k", 1000, "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"),
        ("imagenet100", 100, "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"),
    ],
)
def test_imagenet_labels_are_the_published_wnids_in_sorted_order(name: str, count: int, sha256: str) -> None:
    wnids = load_class_table(name).wnids
    assert len(wnids) == count
    assert wnids == sorted(wnids)
    assert hashlib.sha256("\n".join(wnids).encode()).hexdigest() == sha256


def test_imagenet100_is_part_of_imagenet1k() -> None:
    assert set(load_class_table("imagenet100").wnids) < set(load_class_table("imagenet1k").wnids)


def test_a_t_shirt_is_a_garment_and_a_bag_holds_small_things() -> None:
    rows = {row["class_name"]: row for row in load_class_table("fashion_mnist").rows}
    assert "T-shirt" in rows["T-shirt/top"]["lemmas"]
    assert rows["T-shirt/top"]["hypernym_lemmas"] == [["shirt"]]
    assert "handbag" in rows["Bag"]["lemmas"]
    assert rows["Bag"]["hypernym_lemmas"] == [["container"]]
    assert all(row["hypernym_lemmas"] for row in rows.values())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_name_their_source(name: str) -> None:
    assert "WordNet 3.0" in load_class_table(name).source


def test_classes_that_share_a_name_are_told_apart_by_wnid() -> None:
    table = load_class_table("imagenet1k")
    assert [row["class_name"] for row in table.rows].count("crane") == 2
    assert {"crane (n02012849)", "crane (n03126707)"} < set(table.names)
    assert len(set(table.names)) == 1000
    assert "tench" in table.names


def test_a_table_is_what_was_written(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    path.write_bytes(class_table_bytes(ClassTable(rows, "from here")))
    assert load_class_table(str(path)) == ClassTable(rows, "from here")


def test_hash_depends_on_content_only(rows: list[dict[str, Any]]) -> None:
    table = ClassTable(rows, "one source")
    assert table.hash == ClassTable(rows, "another source").hash
    assert table.hash != ClassTable([{**rows[0], "class_name": "other"}, *rows[1:]], "one source").hash


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'imagenet100'"):
        load_class_table("imagenet10")


@pytest.mark.parametrize(
    ("damage", "message"), [(None, "does not exist"), (b"no parquet", "cannot be read"), (b"", "cannot be read")]
)
def test_an_unreadable_file_is_an_error(tmp_path: Path, damage: bytes | None, message: str) -> None:
    path = tmp_path / "broken.parquet"
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(InputError, match=message):
        load_class_table(str(path))


def test_a_directory_is_not_a_table(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        load_class_table(str(tmp_path / "d.parquet"))


def test_a_missing_column_is_named(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows, schema=CLASS_SCHEMA).drop_columns(["wnid", "lemmas"])
    with pytest.raises(InputError, match=r"lacks the column\(s\) wnid, lemmas"):
        load_class_table(save(table, tmp_path / "t.parquet"))


@pytest.mark.parametrize("column", CLASS_SCHEMA.names)
def test_a_null_is_an_error(rows: list[dict[str, Any]], tmp_path: Path, column: str) -> None:
    rows[3][column] = None
    nullable = pa.schema([field.with_nullable(True) for field in CLASS_SCHEMA])
    with pytest.raises(InputError):
        load_class_table(save(pa.Table.from_pylist(rows, schema=nullable), tmp_path / "t.parquet"))


def test_a_column_of_another_type_is_an_error(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows, schema=CLASS_SCHEMA)
    table = table.set_column(4, "lemmas", pa.array(["no list"] * len(rows)))
    with pytest.raises(InputError, match="wrong type"):
        load_class_table(save(table, tmp_path / "t.parquet"))


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no classes"):
        load_class_table(save(CLASS_SCHEMA.empty_table(), tmp_path / "t.parquet"))


@pytest.mark.parametrize(
    ("label", "changes", "message"),
    [
        (3, {"class_index": 7}, "class_index 7"),
        (3, {"wnid": "../../etc"}, "has the WNID '../../etc'"),
        (3, {"wnid": "n02774152\n"}, "has the WNID"),
        (3, {"wnid": "n03595614"}, "repeats n03595614 of class 0"),
        (3, {"class_name": ""}, "empty class_name"),
        (3, {"definition": ""}, "empty definition"),
        (3, {"lemmas": []}, "empty lemmas"),
        (3, {"lemmas": ["a", ""]}, "empty lemma;"),
        (3, {"lemmas": ["a", None]}, "empty lemma;"),
        (3, {"hypernym_wnids": ["n00000001", "n00000002"]}, "different lengths"),
        (3, {"hypernym_lemmas": [[]]}, "empty lemma;"),
        (3, {"hypernym_lemmas": [None]}, "empty lemma;"),
    ],
)
def test_wrong_content_is_an_error(
    rows: list[dict[str, Any]], label: int, changes: dict[str, Any], message: str
) -> None:
    rows[label] |= changes
    with pytest.raises(InputError, match=message):
        check_rows(rows, "the table")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1), st.lists(st.text(min_size=1), min_size=1, max_size=3), st.text(min_size=1))
def test_any_text_survives_the_file(tmp_path: Path, name: str, lemmas: list[str], definition: str) -> None:
    row = load_class_table("fashion_mnist").rows[0] | {"class_name": name, "lemmas": lemmas, "definition": definition}
    path = tmp_path / "any.parquet"
    path.write_bytes(class_table_bytes(ClassTable([row], name)))
    assert load_class_table(str(path)) == ClassTable([row], name)


def test_a_shared_name_is_spoken_with_its_hypernym_and_no_number() -> None:
    classes = load_class_table("imagenet1k")
    spoken = dict(zip(classes.wnids, classes.spoken_names, strict=True))
    assert (spoken["n02012849"], spoken["n03126707"]) == ("crane, wading bird", "crane, lifting device")
    assert spoken["n02123045"] == "tabby" and not any("(" in name for name in spoken.values())


def test_spoken_names_of_imagenet_differ_without_capitals_which_clip_does_not_read() -> None:
    classes = load_class_table("imagenet1k")
    spoken = dict(zip(classes.wnids, classes.spoken_names, strict=True))
    assert len({name.lower() for name in spoken.values()}) == 1000
    assert (spoken["n02113186"], spoken["n02963159"]) == ("Cardigan, corgi", "cardigan, sweater")
