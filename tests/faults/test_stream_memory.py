"""`train.ingest=stream` on a cluster whose object store holds a quarter of the decoded images: none goes to disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from tests.cluster_head import ClusterHead
from tests.faults.ray_nodes import MIB
from tests.image_sets import NO_MODEL, write_image_set

SIDE, IMAGES_PER_CLASS, EPOCHS = 512, 128, 2
STORE_BYTES = 250 * MIB
"""For 1,280 images of 0.79 MB, 1,007 MB."""


def enlarge(_row: int, row: dict[str, Any]) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(row["image"]["bytes"])).resize((SIDE, SIDE)).save(buffer, "JPEG")
    return {**row, "image": {"bytes": buffer.getvalue(), "path": None}, "width": SIDE, "height": SIDE}


@pytest.fixture
def head(isolated_environment: None) -> Iterator[ClusterHead]:
    started = ClusterHead(4, object_store_bytes=STORE_BYTES)
    yield started
    started.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_set_larger_than_the_object_store_is_streamed_without_spilling(head: ClusterHead, tmp_path: Path) -> None:
    root, settings = tmp_path / "runs", {
        "recipe.model.id": NO_MODEL["id"], "recipe.model.revision": NO_MODEL["revision"],
        "recipe.width": SIDE, "recipe.height": SIDE, "images_per_class": IMAGES_PER_CLASS,
        "generate.shard_size": 16, "train.ingest": "stream", "train.stored_size": SIDE,
        "train.epochs": EPOCHS, "train.batch_size": 32, "train.num_workers": 1,
        "train.max_memory_gib": 0.1, "tracking.enabled": "false",
    }  # fmt: skip
    words = [f"{key}={value}" for key, value in settings.items()]
    write_image_set(load_config("fashion", overrides=words), Store.open(str(root)), enlarge)
    command = ["python", "-m", "jobs.train", "--preset", "fashion", "--root", str(root)]
    command += [part for word in words for part in ("--set", word)]
    sent = head.ray_job("submit", "--working-dir", ".", "--", *command, timeout_s=800)
    assert sent.returncode == 0, sent.stdout[-3000:] + sent.stderr[-3000:]
    (metrics,) = root.glob("models/*/metrics.jsonl")
    assert metrics.read_text().count('"images": 1280') == EPOCHS
    raylet = (head.folder / "ray" / "session_latest" / "logs" / "raylet.out").read_text()
    spilled = [line for line in raylet.splitlines() if "Spilled" in line]
    assert not spilled, spilled
