"""Which images of a set a report reads and shows. Pages are looked at in test_report.py and tests/browser."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import report_content
from pipeline.core.artifact import Store
from pipeline.core.identity import image_id
from pipeline.core.report_content import IMAGE_COLUMNS, SEARCHED_PER_PICTURE, _image_rows
from pipeline.core.schema import IMAGE_SCHEMA

NUM_CLASSES, IMAGES_PER_CLASS = 4, 60


@pytest.fixture
def images_dir(store: Store) -> str:
    """A shard for each index inside the classes."""
    for index in range(IMAGES_PER_CLASS):
        rows = [
            {**dict.fromkeys(IMAGE_COLUMNS), "image_id": image_id(label, index), "class_index": label}
            for label in range(NUM_CLASSES)
        ]
        out = io.BytesIO()
        schema = pa.schema([IMAGE_SCHEMA.field(name).with_nullable(True) for name in IMAGE_COLUMNS])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
        store.write_bytes(f"images/a/shards/shard-{index:06d}.parquet", out.getvalue())
    store.write_json(
        "images/a/identity.json", {"recipe_hash": "a", "engine": {}, "batch_size": 1, "shard_size": NUM_CLASSES}
    )
    return "images/a"


def test_a_class_without_a_good_image_does_not_have_the_whole_set_read(
    store: Store, images_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    of_file = report_content.read_columns
    monkeypatch.setattr(
        report_content,
        "read_columns",
        lambda store, path, columns: (read.append(path), of_file(store, path, columns))[1],
    )
    rows = list(_image_rows(store, images_dir, NUM_CLASSES, IMAGES_PER_CLASS, wanted=2))
    assert len(read) == 2 * SEARCHED_PER_PICTURE and len(rows) == len(read) * NUM_CLASSES


def test_images_that_the_model_never_saw_are_not_shown(store: Store, images_dir: str) -> None:
    rows = list(_image_rows(store, images_dir, NUM_CLASSES, 3, wanted=3))
    assert {row["image_id"] for _, row in rows} == {image_id(c, i) for c in range(NUM_CLASSES) for i in range(3)}
