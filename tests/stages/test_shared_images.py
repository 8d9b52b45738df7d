"""Image sets that many ask for at once, with a maker that needs no Ray."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from pipeline.stages import shared_images
from pipeline.stages.generate import publish_manifest
from pipeline.stages.shared_images import ImageBill, ensure_images, is_there
from tests.image_sets import small_config, write_image_set


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the sets that were made, in order."""
    sizes: list[int] = []

    def generate(config: RunConfig, store: Store) -> dict[str, Any]:
        sizes.append(config.images_per_class)
        recipe = write_image_set(config, store)
        return publish_manifest(config, recipe, store, sorted(published_shards(store, recipe.images_dir)))

    monkeypatch.setattr(shared_images, "generate", generate)
    return sizes


def test_ten_that_ask_at_once_have_it_made_once(made: list[int], tmp_path: Path) -> None:
    store, config = Store.open(str(tmp_path)), small_config(images_per_class=6)
    threads = [threading.Thread(target=ensure_images, args=(config, store)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert made == [6] and is_there(config, resolve_recipe(config), store)


def test_a_smaller_one_is_a_prefix_and_a_larger_one_is_made(made: list[int], tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for size in (6, 3, 6, 9):
        ensure_images(small_config(images_per_class=size), store)
    assert made == [6, 9]


def test_shards_without_a_manifest_are_not_a_finished_set(made: list[int], tmp_path: Path) -> None:
    store, config = Store.open(str(tmp_path)), small_config(images_per_class=3)
    write_image_set(config, store)
    assert not is_there(config, resolve_recipe(config), store)
    ensure_images(config, store)
    assert made == [3]


def test_the_bill_counts_what_was_there_and_what_was_made_for_these_runs(made: list[int], tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    ensure_images(small_config(images_per_class=3), store)  # 1 shard of 30
    time.sleep(0.05)
    bill = ImageBill(time.time())
    for size in (3, 6, 6):
        ensure_images(small_config(images_per_class=size), store)
        bill.add(small_config(images_per_class=size), store)
    facts = bill.facts()
    # write_image_set writes both shards of the larger set, so the first one counts as made again.
    assert (facts["images_asked"], facts["images_made"], facts["images_reused"]) == (30 + 60 + 60, 60, 90)
    assert facts["image_device_s_spent"] > 0 and facts["image_device_s_saved"] > 0
    bill.add(small_config(images_per_class=60), store)  # never made: counts nothing
    assert bill.facts() == facts
