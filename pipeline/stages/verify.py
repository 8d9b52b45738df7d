"""Every shard of an image set against its ledger and its recipe, in parallel; the bad ones are named or made again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

os.environ.setdefault("RAY_DATA_USE_DATASOURCE_V2", "0")  # see pipeline/stages/ingest.py

import ray.data

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import (
    as_begun,
    check_row_format,
    each_summary,
    published_shards,
    read_identity,
    set_totals,
    shard_path,
)
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.verification import check_shard
from pipeline.stages.data_context import leave_words_to_us
from pipeline.stages.generate import generate
from pipeline.stages.pulse import start_pulse, voice, watched
from pipeline.stages.runtime import ray_session

SHARDS_PER_TASK = 4
"""A task starts in milliseconds and a shard takes about a second: few enough that all CPUs have work to the end."""


def verify(config: RunConfig, store: Store, say: Callable[[str], object], *, repair: bool = False) -> dict[str, Any]:
    """Check every published shard of the set of a config, and that none is missing.

    Args:
        config: of the run; only its recipe counts.
        store: the storage root.
        say: takes one line for each fault.
        repair: remove the bad shards and make them, and the missing ones, again.

    Returns:
        images_dir; shards and rows that are sound at the end; bad (shard number -> its faults); missing (numbers);
        strangers (names of files that are no shards); finished (a manifest is there); manifest_faults; repaired
        (numbers of the shards that were made again).

    Raises:
        InputError: there is no such set.
        WorkError: the storage does not answer; with `repair` as `generate`.
    """
    recipe = resolve_recipe(config)
    identity = read_identity(store, recipe.images_dir)
    check_row_format(identity, store.uri(recipe.images_dir))
    shard_size = int(identity["shard_size"])
    manifest_path = f"{recipe.images_dir}/{MANIFEST}"
    manifest = store.read_json(manifest_path) if store.exists(manifest_path) else None
    published = published_shards(store, recipe.images_dir)
    expected = range(manifest["shards"] if manifest else max(published, default=-1) + 1)
    missing = [shard for shard in expected if shard not in published]
    bad: dict[int, list[str]] = {}
    stall_timeout_s = config.generate.stall_timeout_s
    for shard, faults in shard_faults(recipe, store, sorted(published), shard_size, stall_timeout_s):
        if faults:
            bad[shard] = faults
            for fault in faults:
                say(f"{store.uri(shard_path(recipe.images_dir, shard))}: {fault}")
    for shard in missing:
        say(f"{store.uri(shard_path(recipe.images_dir, shard))}: it is not there")
    wrong_numbers = [] if bad or missing or not manifest else manifest_faults(manifest, recipe, store)
    for fault in wrong_numbers:
        say(f"{store.uri(manifest_path)}: {fault}")
    repaired: list[int] = []
    if repair and (bad or missing or wrong_numbers):
        repaired = make_again(config, store, recipe.images_dir, sorted([*bad, *missing]), identity, manifest)
    sound = len(published) - len(bad) + len(repaired)
    return {
        "images_dir": recipe.images_dir,
        "shards": sound,
        "rows": sound * shard_size,
        "bad": {str(shard): faults for shard, faults in sorted(bad.items())},
        "missing": missing,
        "strangers": strangers(store, recipe.images_dir),
        "finished": manifest is not None,
        "manifest_faults": wrong_numbers,
        "repaired": repaired,
    }


def shard_faults(
    recipe: Recipe, store: Store, shards: list[int], shard_size: int, stall_timeout_s: float
) -> Iterator[tuple[int, list[str]]]:
    """(shard, its faults) of every shard, as tasks of Ray Data finish. One file at a time is in a worker's memory.

    Raises `WorkError` when no shard was checked for `stall_timeout_s`, e.g. since all CPUs belong to other jobs.
    """
    if not shards:
        return
    with ray_session():
        pulse = start_pulse()

        def check(row: dict[str, Any]) -> dict[str, Any]:
            shard = int(row["shard"])
            faults = check_shard(store, recipe, shard, shard_size)
            voice(pulse)("shard")
            return {"shard": shard, "faults": json.dumps(faults)}

        leave_words_to_us()
        blocks = max(1, len(shards) // SHARDS_PER_TASK)
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=blocks).map(check)
        with closing(watched(rows.iter_rows(), pulse, {"CPU": 1}, stall_timeout_s, "verify")) as checked:
            for row in checked:
                yield row["shard"], json.loads(row["faults"])


def strangers(store: Store, images_dir: str) -> list[str]:
    """Names beside the shards that no reader looks at."""
    return [n for n in store.list_names(f"{images_dir}/shards") if not re.fullmatch(r"shard-\d{6,}\.parquet", n)]


def manifest_faults(manifest: dict[str, Any], recipe: Recipe, store: Store) -> list[str]:
    """Numbers of the manifest that its shards do not bear out."""
    totals = set_totals(each_summary(store, recipe.images_dir, range(manifest["shards"])))
    names = ("rows", "ok", "failed", "counts", "set_sha256")
    return [f"it says {n} {manifest[n]}, its shards say {totals[n]}" for n in names if manifest[n] != totals[n]]


def make_again(
    config: RunConfig,
    store: Store,
    images_dir: str,
    shards: list[int],
    identity: dict[str, Any],
    manifest: dict[str, Any] | None,
) -> list[int]:
    """Remove shards and let `generate` make what is then missing. Killed in between, `generate` alone goes on."""
    for shard in shards:
        store.delete(shard_path(images_dir, shard))
    size = manifest["images_per_class"] if manifest else config.images_per_class
    generate(as_begun(config, identity).model_copy(update={"images_per_class": size}), store)
    return shards
