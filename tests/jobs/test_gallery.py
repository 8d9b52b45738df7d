"""`python -m jobs.gallery` in this process: a process of its own takes seconds to start."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from pipeline.core.artifact import Store
from tests.image_sets import small_config, write_image_set


def test_jobs_gallery_writes_the_pages_and_says_where(run, tmp_path: Path) -> None:
    config = small_config(images_per_class=2, shard_size=20)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    root = tmp_path / "runs"
    recipe = write_image_set(config, Store.open(str(root)))
    code, out, err = run("gallery", "--config", str(tmp_path / "run.yaml"), "--root", str(root), "--json")
    assert code == 0, err
    first, second, last = out.splitlines()
    index = root / "galleries" / recipe.images_dir.rpartition("/")[2] / "index.html"
    assert first.startswith("20 images of 10 classes on 1 pages, ") and second == f"index: {index}"
    assert json.loads(last)["index"] == str(index)
    assert sorted(path.name for path in index.parent.iterdir()) == ["index.html", "page-001.html"]
