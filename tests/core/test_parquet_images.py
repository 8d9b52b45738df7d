from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.parquet_images import ParquetRows, of_one_split, parquet_files
from pipeline.core.real_images import open_images
from pipeline.core.test_sets import SetSpec, known_sets

FASHION = load_class_table("fashion_mnist")
PIXELS = as_rgb32(load_fashion_mnist(None, "test")[0][:12])
LABELS = load_fashion_mnist(None, "test")[1][:12].tolist()


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write(path: Path, columns: dict[str, list[Any]], names: list[str] | None = None) -> None:
    table = pa.table(columns)
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def images(part: slice) -> list[dict[str, Any]]:
    return [{"bytes": png(pixels), "path": None} for pixels in PIXELS[part]]


def test_numbers_of_the_runs_own_classes_over_files_and_row_groups(tmp_path: Path) -> None:
    for number, part in enumerate((slice(0, 5), slice(5, 12))):
        write(tmp_path / "data" / f"test-0000{number}.parquet", {"image": images(part), "label": LABELS[part]})
    wanted = sorted(set(LABELS))
    classes = ClassTable([FASHION.rows[label] | {"class_index": i} for i, label in enumerate(range(10))], "")
    seen = open_images(
        SetSpec("own", "own", wnids=tuple(FASHION.wnids[label] for label in wanted)), str(tmp_path), classes
    )
    assert seen.labels.tolist() == LABELS
    for position in (11, 0, 4, 5, 7, 6):  # any order
        assert (seen.image(position) == PIXELS[position]).all()
    batches = [labels.tolist() for _, labels in seen.batches(5, 32)]
    assert [label for batch in batches for label in batch] == LABELS and [len(batch) for batch in batches] == [5, 5, 2]


def test_classes_that_the_run_lacks_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "all.parquet"
    write(path, {"image": images(slice(0, 12)), "wnid": [FASHION.wnids[label] for label in LABELS]})
    two = [9, 2]
    classes = ClassTable([FASHION.rows[label] | {"class_index": i} for i, label in enumerate(two)], "")
    seen = open_images(SetSpec("own", "own"), str(path), classes)
    kept = [row for row, label in enumerate(LABELS) if label in two]
    assert seen.labels.tolist() == [two.index(LABELS[row]) for row in kept]
    assert all((seen.image(i) == PIXELS[row]).all() for i, row in enumerate(kept))
    others = len(set(LABELS) - set(two))
    assert seen.left_out == f"{12 - len(kept)} images of {others} classes that the model does not have"


def test_numbers_of_imagenet_are_not_those_of_the_run(tmp_path: Path) -> None:
    """Hubs number ImageNet's classes 0 to 999; a run with 100 of them numbers its own."""
    hundred, thousand = load_class_table("imagenet100"), load_class_table("imagenet1k").wnids
    numbers = [thousand.index(wnid) for wnid in reversed(hundred.wnids)] + [0]
    write(tmp_path / "a.parquet", {"image": images(slice(0, 1)) * 101, "label": numbers})
    seen = open_images(known_sets()["imagenet_val"], str(tmp_path), hundred)
    assert seen.labels.tolist() == list(reversed(range(100)))
    assert seen.left_out.startswith("1 images of 1 classes")


def test_names_in_the_file_win_over_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(slice(0, 2)), "label": [1, 0]}, FASHION.wnids[3:5])
    assert ParquetRows([tmp_path / "a.parquet"]).wnids(FASHION.wnids) == [FASHION.wnids[4], FASHION.wnids[3]]
    write(tmp_path / "b.parquet", {"image": images(slice(0, 2)), "label": [1, 0]}, ["cat", "dog"])
    assert ParquetRows([tmp_path / "b.parquet"]).wnids(FASHION.wnids) == [FASHION.wnids[1], FASHION.wnids[0]]


def test_all_rows_of_an_anomaly_set_are_kept_without_a_class(tmp_path: Path) -> None:
    write(tmp_path / "o.parquet", {"image": images(slice(0, 3)), "label": [999, 0, 5]})
    seen = open_images(known_sets()["imagenet_o"], str(tmp_path), load_class_table("imagenet100"))
    assert seen.labels.tolist() == [-1, -1, -1] and (seen.image(2) == PIXELS[2]).all()


def test_a_set_that_is_opened_again_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, two = tmp_path / "a.parquet", ClassTable(FASHION.rows[:2], "")
    reads, opened = [], Path.open

    def counted(file: Path, *arguments: Any, **more: Any) -> Any:
        reads.append(file)
        return opened(file, *arguments, **more)

    def fingerprint() -> str:
        return open_images(SetSpec("own", "own"), str(tmp_path), two).fingerprint

    monkeypatch.setattr(Path, "open", counted)
    write(path, {"image": images(slice(0, 2)), "wnid": two.wnids})
    first = fingerprint()
    assert fingerprint() == first and reads == [path]
    was = path.stat()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"parquet-cpp-arrow", b"parquet-cpp-other"))  # as long, and another file
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
    assert path.stat().st_size == was.st_size and fingerprint() != first


def test_where_files_lie(tmp_path: Path) -> None:
    assert parquet_files(tmp_path) == [] and parquet_files(tmp_path / "x.parquet") == []
    write(tmp_path / "b.parquet", {"a": [1]})
    write(tmp_path / "data" / "c.parquet", {"a": [1]})
    assert parquet_files(tmp_path) == [tmp_path / "b.parquet"] == parquet_files(tmp_path / "b.parquet")
    assert parquet_files(tmp_path / "data") == [tmp_path / "data" / "c.parquet"]


def test_of_a_hubs_splits_one_is_scored_and_the_others_are_told(tmp_path: Path) -> None:
    """ImageNet's snapshot has all three; its test labels are -1, and train is what models were made of."""
    parts = {"train-00000-of-00002": (4, 1), "train-00001-of-00002": (4, 1), "test-00000-of-00001": (4, -1)}
    for name, (count, label) in {**parts, "validation-00000-of-00001": (10, 0)}.items():
        labels = list(range(10)) if count == 10 else [label] * count
        write(tmp_path / "data" / f"{name}.parquet", {"image": images(slice(0, count)), "label": labels})
    seen = open_images(SetSpec("own", "own"), str(tmp_path), FASHION)
    assert seen.labels.tolist() == list(range(10))
    assert seen.left_out == "3 .parquet files beside validation (test, train)"


def test_files_of_one_split_or_of_none_are_all_taken(tmp_path: Path) -> None:
    for names in (["train-0.parquet", "train-1.parquet"], ["a.parquet", "testing.parquet"]):
        files = [tmp_path / name for name in names]
        assert of_one_split(files) == (files, "")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"image": [b"x"], "class": [1]}, "columns image, class; it needs image and wnid or label"),
        ({"image": [b"x"], "label": [10]}, "row 0: label 10 is no WNID and no number below 10"),
        ({"image": [b"x"], "label": [-1]}, "label -1"),
        ({"image": [b"x"], "wnid": ["../x"]}, r"wnid '\.\./x' is no WNID"),
    ],
)
def test_wrong_columns_are_refused(tmp_path: Path, columns, words: str) -> None:
    write(tmp_path / "a.parquet", columns)
    with pytest.raises(InputError, match=words):
        ParquetRows([tmp_path / "a.parquet"]).wnids(FASHION.wnids)


def test_no_parquet_and_no_image_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"a\.parquet' is no readable Parquet file"):
        ParquetRows([tmp_path / "a.parquet"])
    rows = [{"bytes": png(PIXELS[0]), "path": None}, {"bytes": b"no image", "path": None}, {"bytes": None, "path": "x"}]
    write(tmp_path / "a.parquet", {"image": rows, "label": [0, 1, 2]})
    opened = ParquetRows([tmp_path / "a.parquet"])
    for row, words in ((1, "row 1 holds no readable image"), (2, "row 2 holds no image bytes")):
        with pytest.raises(InputError, match=words):
            opened.image(row)


def test_pages_that_are_damaged_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, {"image": images(slice(0, 4)), "label": [0, 1, 2, 3]})
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:4] + bytes(footer - 4) + whole[footer:])
    rows = ParquetRows([path])
    for read in (lambda: rows.wnids(FASHION.wnids), lambda: rows.image(0)):
        with pytest.raises(InputError, match=r"a\.parquet' is no readable Parquet file"):
            read()


def test_a_column_of_something_else_and_a_strange_note_are_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"image": ["x.png"], "label": [3]}).replace_schema_metadata({"huggingface": "{no json"})
    pq.write_table(table, path)
    rows = ParquetRows([path])
    assert rows.wnids(FASHION.wnids) == [FASHION.wnids[3]]
    with pytest.raises(InputError, match="row 0 holds no image bytes"):
        rows.image(0)


def test_an_anomaly_set_needs_its_images_too(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"picture": [b"x"]})
    with pytest.raises(InputError, match="columns picture; it needs image"):
        open_images(known_sets()["imagenet_o"], str(tmp_path), load_class_table("imagenet100"))
