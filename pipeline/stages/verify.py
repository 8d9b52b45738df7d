"""Every shard of an image set against its ledger and its recipe, in parallel; the bad ones are named or made again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray.data

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.extra_set import (
    extra_dir,
    extra_manifest,
    extra_number,
    manifest_shards,
    published_extras,
    without_gaps,
)
from pipeline.core.extra_shards import is_extra, rows_in, split_extra_shard
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
from pipeline.stages.extra_images import make_extras_again
from pipeline.stages.generate import generate, publish_manifest
from pipeline.stages.pool_watch import watched_rows
from pipeline.stages.pulse import SHARD, start_pulse, voice
from pipeline.stages.runtime import ray_session

SHARDS_PER_TASK = 4
"""A task starts in milliseconds and a shard takes about a second: few enough that all CPUs have work to the end."""

LEFTOVER_AGE_S = 3600.0
"""A temporary file is filled in seconds; one that is older than this was left by a killed writer."""


def verify(config: RunConfig, store: Store, say: Callable[[str], object], *, repair: bool = False) -> dict[str, Any]:
    """Check every published shard of the set of a config, and that none is missing below the highest, extra ones too.

    Args:
        config: of the run; only its recipe counts.
        store: the storage root.
        say: takes one line for each fault and each stranger.
        repair: make the bad shards, and the missing ones, again; a bad file stays until its successor is there.

    Returns:
        images_dir; shards and rows that are sound at the end, extra_shards of them; bad (shard number -> its faults);
        missing (numbers); strangers (paths of files that are no shards); leftovers (temporary files of killed
        writers); finished (a manifest is there); manifest_faults; repaired (numbers of the shards that were made again
        and are sound now); still_bad (shard number -> faults of those that were made again and are not).

    Raises:
        InputError: there is no such set; with `repair` as `generate`, before anything is changed.
        WorkError: the storage does not answer, or identity or manifest are damaged; with `repair` as `generate`.
    """
    recipe = resolve_recipe(config)
    identity = read_identity(store, recipe.images_dir)
    check_row_format(identity, store.uri(recipe.images_dir))
    manifest_path = f"{recipe.images_dir}/{MANIFEST}"
    manifest = store.read_json(manifest_path) if store.exists(manifest_path) else None
    uniform, extra = published_shards(store, recipe.images_dir), known_extras(store, recipe)
    whole = range(max(0 if manifest is None else manifest["shards"], max(uniform, default=-1) + 1))
    growth = extra_manifest(store, recipe.images_dir)
    published = uniform | extra
    expected = [*whole, *sorted(without_gaps([*extra, *manifest_shards(growth, recipe)]))]
    missing = [shard for shard in expected if shard not in published]
    stall_timeout_s = config.generate.stall_timeout_s
    bad = named_faults(recipe, store, sorted(published), identity, stall_timeout_s, say)
    for shard in missing:
        say(f"{store.uri(shard_path(recipe.images_dir, shard))}: it is not there")
    others = strangers(store, recipe)
    for name in others:
        say(f"{store.uri(recipe.images_dir)}/{name}: no shard, so no reader looks at it")
    wrong_numbers: list[str] = []
    wrong_growth: list[str] = []
    if not bad and not missing:
        if manifest is not None:
            wrong_numbers = manifest_faults(manifest, list(range(manifest["shards"])), recipe, store)
        if growth is not None:
            wrong_growth = manifest_faults(growth, manifest_shards(growth, recipe), recipe, store)
    for path, faults in ((manifest_path, wrong_numbers), (f"{extra_dir(recipe.images_dir)}/{MANIFEST}", wrong_growth)):
        for fault in faults:
            say(f"{store.uri(path)}: {fault}")
    leftovers = old_leftovers(store, recipe.images_dir)
    made_again: list[int] = []
    still_bad: dict[int, list[str]] = {}
    if repair:
        for path in leftovers:
            store.delete(path)
        made_again = sorted([*bad, *missing])
        again = [shard for shard in made_again if not is_extra(shard)]
        if again or wrong_numbers:
            make_again(config, store, again, len(whole), identity, manifest)
        more = [shard for shard in made_again if is_extra(shard)]
        if more or wrong_growth:
            make_extras_again(config, store, more, identity)
        still_bad = named_faults(recipe, store, made_again, identity, stall_timeout_s, say)
    repaired = [shard for shard in made_again if shard not in still_bad]
    sound = published.difference(bad).union(repaired)
    return {
        "images_dir": recipe.images_dir,
        "shards": len(sound),
        "rows": sum(shard_rows(shard, identity) for shard in sound),
        "extra_shards": sum(map(is_extra, sound)),
        "bad": {str(shard): faults for shard, faults in sorted(bad.items())},
        "missing": missing,
        "strangers": others,
        "leftovers": leftovers,
        "finished": manifest is not None,
        "manifest_faults": [*wrong_numbers, *wrong_growth],
        "repaired": repaired,
        "still_bad": {str(shard): faults for shard, faults in sorted(still_bad.items())},
    }


def named_faults(
    recipe: Recipe,
    store: Store,
    shards: list[int],
    identity: dict[str, Any],
    stall_timeout_s: float,
    say: Callable[[str], object],
) -> dict[int, list[str]]:
    """Shard -> its faults, of those that have any; a line for each fault as it is found. Raises as `shard_faults`."""
    bad = {}
    for shard, faults in shard_faults(recipe, store, shards, identity, stall_timeout_s):
        if faults:
            bad[shard] = faults
            for fault in faults:
                say(f"{store.uri(shard_path(recipe.images_dir, shard))}: {fault}")
    return bad


def shard_faults(
    recipe: Recipe, store: Store, shards: list[int], identity: dict[str, Any], stall_timeout_s: float
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
            faults = check_shard(store, recipe, shard, shard_rows(shard, identity))
            voice(pulse)(SHARD)
            return {"shard": shard, "faults": json.dumps(faults)}

        leave_words_to_us()
        blocks = max(1, len(shards) // SHARDS_PER_TASK)
        rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=blocks).map(check)
        with watched_rows(rows, pulse, {"CPU": 1}, stall_timeout_s, "verify") as checked:
            for row in checked:
                yield row["shard"], json.loads(row["faults"])


def shard_rows(shard: int, identity: Mapping[str, Any]) -> int:
    """Rows that a shard of a set must have."""
    return rows_in(shard, int(identity["shard_size"]), int(identity["batch_size"]))


def known_extras(store: Store, recipe: Recipe) -> set[int]:
    """The published extra shards of the recipe's classes; one of another class is a stranger."""
    published = published_extras(store, recipe.images_dir)
    return {shard for shard in published if split_extra_shard(shard)[0] < len(recipe.classes)}


def strangers(store: Store, recipe: Recipe) -> list[str]:
    """Paths inside the set, beside its shards, that no reader looks at."""
    uniform = store.list_names(f"{recipe.images_dir}/shards")
    found = [f"shards/{name}" for name in uniform if not re.fullmatch(r"shard-\d{6,}\.parquet", name)]
    known = known_extras(store, recipe)
    others = [name for name in store.list_names(extra_dir(recipe.images_dir)) if name != MANIFEST]
    return found + [f"extra/{name}" for name in others if extra_number(name) not in known]


def manifest_faults(manifest: dict[str, Any], shards: list[int], recipe: Recipe, store: Store) -> list[str]:
    """Numbers of a manifest that its shards do not bear out."""
    totals = set_totals(each_summary(store, recipe.images_dir, shards))
    names = ("rows", "ok", "failed", "counts", "set_sha256")
    return [f"it says {n} {manifest[n]}, its shards say {totals[n]}" for n in names if manifest[n] != totals[n]]


def old_leftovers(store: Store, images_dir: str) -> list[str]:
    """Paths of temporary files that no living writer still fills."""
    folders = (images_dir, f"{images_dir}/shards", extra_dir(images_dir))
    found = [leftover for folder in folders for leftover in store.leftovers(folder)]
    return [path for path, age_s in found if age_s > LEFTOVER_AGE_S]


def make_again(
    config: RunConfig,
    store: Store,
    shards: list[int],
    stop: int,
    identity: dict[str, Any],
    manifest: dict[str, Any] | None,
) -> None:
    """Make shards below `stop` anew, each in the place of its old file; the set grows by none.

    The manifest is brought up to date when there is one. It speaks of its own shards: an interrupted extension beyond
    them stays one, and a set without a manifest gets none.
    """
    config = as_begun(config, identity)
    recipe = resolve_recipe(config)
    least = (stop - 1) * config.generate.shard_size // len(recipe.classes) + 1  # images per class that reach so far
    begun = config.images_per_class if manifest is None else manifest["images_per_class"]
    sized = config.model_copy(update={"images_per_class": max(begun, least)})
    generate(sized, store, shards=f"0:{stop}", remake=shards, publishes=False)
    if manifest is not None:
        made = list(range(manifest["shards"]))
        publish_manifest(config.model_copy(update={"images_per_class": begun}), recipe, store, made)
