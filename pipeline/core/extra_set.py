"""The extra images of a set on disk: which shards are there, which a training needs, and their manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.errors import InputError
from pipeline.core.extra_shards import extra_shard, extra_shards, split_extra_shard
from pipeline.core.image_set import each_summary, read_identity, set_totals
from pipeline.core.recipe import Recipe

_NAME = re.compile(r"class-(\d{6,})-(\d{6,})\.parquet")


def extra_dir(images_dir: str) -> str:
    """The folder of a set's extra shards and of their manifest."""
    return f"{images_dir}/extra"


def extra_number(name: str) -> int | None:
    """The number of the extra shard with this file name; None when it is none."""
    matched = _NAME.fullmatch(name)
    return extra_shard(int(matched[1]), int(matched[2])) if matched else None


def published_extras(store: Store, images_dir: str) -> set[int]:
    """The ledger: numbers of the extra shards that are there."""
    names = store.list_names(extra_dir(images_dir))
    return {number for name in names if (number := extra_number(name)) is not None}


def without_gaps(shards: Iterable[int]) -> set[int]:
    """Of every class all extra shards up to the last of those given."""
    last: dict[int, int] = {}
    for class_index, block in map(split_extra_shard, shards):
        last[class_index] = max(block, last.get(class_index, 0))
    return {extra_shard(class_index, block) for class_index in last for block in range(last[class_index] + 1)}


def needed_extras(store: Store, recipe: Recipe, counts: Sequence[int]) -> list[int]:
    """The shards that hold the first `counts[c]` extra images of every class c; none for no counts.

    Raises:
        InputError: the set is not there, or lacks some of them.
    """
    if not len(counts):
        return []
    wanted = extra_shards(counts, int(read_identity(store, recipe.images_dir)["batch_size"]))
    missing = set(wanted) - published_extras(store, recipe.images_dir)
    if missing:
        labels = sorted({split_extra_shard(shard)[0] for shard in missing})
        names = ", ".join(recipe.classes.wnids[label] for label in labels[:5])
        raise InputError(
            f"{store.uri(extra_dir(recipe.images_dir))} lacks {len(missing)} of the {len(wanted)} shards for "
            f"train.extra_images ({len(labels)} classes: {names}); run `python -m jobs.generate --per-class FILE` with "
            "the same settings"
        )
    return wanted


def extra_manifest(store: Store, images_dir: str) -> dict[str, Any] | None:
    """`extra/manifest.json` of a set; None when it has none."""
    path = f"{extra_dir(images_dir)}/{MANIFEST}"
    return store.read_json(path) if store.exists(path) else None


def manifest_shards(manifest: dict[str, Any] | None, recipe: Recipe) -> list[int]:
    """The shards that a manifest of extra images speaks of; none without one."""
    if manifest is None:
        return []
    counts = [manifest["per_class"].get(wnid, 0) for wnid in recipe.classes.wnids]
    return extra_shards(counts, int(manifest["batch_size"]))


def publish_extra_manifest(store: Store, recipe: Recipe, batch_size: int, counts: Sequence[int]) -> dict[str, Any]:
    """Write the manifest of the extra images from the footers of their shards; a larger count of before stays.

    It is no part of the set's own manifest: that says the same whatever lies beside the uniform part, and jobs that
    grow the two at once do not write over each other.

    Args:
        store: the storage root.
        recipe: of the set.
        batch_size: of the set.
        counts: extra images asked of every class.
    """
    before = extra_manifest(store, recipe.images_dir)
    said = {} if before is None else before["per_class"]
    largest = [max(count, said.get(wnid, 0)) for wnid, count in zip(recipe.classes.wnids, counts, strict=True)]
    shards = extra_shards(largest, batch_size)
    manifest = {
        "id": recipe.id,
        "recipe_hash": recipe.hash,
        "per_class": {wnid: count for wnid, count in zip(recipe.classes.wnids, largest, strict=True) if count},
        "shards": len(shards),
        "batch_size": batch_size,
        **set_totals(each_summary(store, recipe.images_dir, shards)),
    }
    if manifest != before:
        store.write_json(f"{extra_dir(recipe.images_dir)}/{MANIFEST}", manifest)
    return manifest
