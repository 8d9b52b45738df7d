from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, WorkError
from pipeline.core.recipe import resolve_recipe
from pipeline.core.schema import FAILED
from pipeline.core.set_gallery import SEARCH_HASH, sample_page, write_gallery
from tests.image_sets import small_config, write_image_set


def spoil(number: int, row: dict[str, Any]) -> dict[str, Any]:
    """The first image of every class failed, and all those of the class at row 0."""
    if number < 10 or row["class_index"] == spoil.first:  # type: ignore[attr-defined]
        spoil.first = row["class_index"] if number == 0 else spoil.first  # type: ignore[attr-defined]
        return {**row, "status": FAILED, "reason": "out of paint", "image": {"bytes": None, "path": None}}
    return row


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, dict[str, Any]]:
    spoil.first = None  # type: ignore[attr-defined]
    config, store = small_config(images_per_class=4, shard_size=8), Store.open(str(tmp_path))
    write_image_set(config, store, spoil)
    return store, write_gallery(config, store, 3)


def test_every_class_has_its_first_images_and_a_frame_for_what_failed(made) -> None:
    store, summary = made
    assert (summary["classes"], summary["images"], summary["pages"]) == (10, 30, 1)
    page = store.read_bytes(str(Path(summary["index"]).with_name("page-001.html"))).decode()
    assert page.count("<figure") == 30 and page.count("out of paint") == 12
    assert page.count("<img") == 18 and page.count('class="class" id="n') == 10
    seeds = re.findall(r"image (\d+)</span>", page)
    assert [int(seed) & 0xFFFFFFFF for seed in seeds] == [0, 1, 2] * 10  # in the set's order, no fourth one


def test_the_index_leads_to_every_class_and_shows_one_image_of_it(made) -> None:
    store, summary = made
    index = store.read_bytes(summary["index"]).decode()
    page = store.read_bytes(str(Path(summary["index"]).with_name("page-001.html"))).decode()
    links = re.findall(r'href="page-001.html#(n\d{8})"', index)
    assert len(set(links)) == 10 and all(f'id="{wnid}"' in page for wnid in links)
    assert index.count("<img") == 9 and index.count("no image") == 1
    assert summary["bytes"] == len(index.encode()) + len(page.encode())


def test_a_sample_is_one_page_of_the_first_images_that_leads_nowhere(made) -> None:
    store, _ = made
    config = small_config(images_per_class=4, shard_size=8)
    page = sample_page(config, store, resolve_recipe(config)).decode()
    assert page.count("<figure") == 40 and "<a href" not in page


def test_only_the_search_may_run(made) -> None:
    store, summary = made
    index = store.read_bytes(summary["index"]).decode()
    (script,) = re.findall(r"<script>(.*?)</script>", index, flags=re.DOTALL)
    found = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert found == SEARCH_HASH and f"script-src '{found}'" in index


def test_the_index_comes_last_so_that_no_link_of_it_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.core.set_gallery.CLASSES_PER_PAGE", 4)
    config, store, written = small_config(images_per_class=1, shard_size=10), Store.open(str(tmp_path)), []
    write_image_set(config, store)
    monkeypatch.setattr(Store, "write_bytes", lambda _self, path, _data: written.append(Path(path).name))
    write_gallery(config, store, 1)
    assert written == ["page-001.html", "page-002.html", "page-003.html", "index.html"]


@pytest.mark.parametrize("image", [None, {"bytes": b"no image", "path": None}])
def test_an_image_that_cannot_be_decoded_names_its_shard(tmp_path: Path, image: Any) -> None:
    config, store = small_config(images_per_class=2, shard_size=10), Store.open(str(tmp_path))
    write_image_set(config, store, lambda number, row: {**row, "image": image} if number == 13 else row)
    for page in (lambda: write_gallery(config, store, 2), lambda: sample_page(config, store, resolve_recipe(config))):
        with pytest.raises(WorkError, match=r"shard-000001\.parquet is damaged \(image \d+ cannot be decoded"):
            page()
    assert not (tmp_path / "galleries").exists()


def test_a_set_with_fewer_images_says_how_to_make_more(tmp_path: Path) -> None:
    config, store = small_config(images_per_class=2, shard_size=20), Store.open(str(tmp_path))
    write_image_set(config, store)
    with pytest.raises(InputError, match="jobs.generate --images-per-class 5"):
        write_gallery(config, store, 5)
    assert not (tmp_path / "galleries").exists()
