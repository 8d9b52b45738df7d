"""Prompt tables on disk: built once, extended when more images are asked for, never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.core.artifact import MANIFEST, Store, sha256_bytes
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import num_rows
from pipeline.core.image_set import check_row_format
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe
from pipeline.core.schema import ROW_FORMAT
from pipeline.stages.tracking import tracked_run

MAX_PART_ROWS = 100_000
"""A part is built in memory (about 60 MB) and published in one write."""


def ensure_prompt_table(config: RunConfig, recipe: Recipe, store: Store) -> dict[str, Any]:
    """Build or extend the recipe's prompt table to hold `config.images_per_class` images of each class.

    Parts are published one by one and only added; the manifest comes last and makes them count. A table that is long
    enough is left alone. A killed call is gone on with by the next one, which makes the same parts.

    Args:
        config: how many images, and the shard size.
        recipe: of this config.
        store: the storage root.

    Returns:
        The manifest: `rows`, `shard_size`, `recipe_hash`, `recipe` (what was hashed), `classes` and `scenes` (how
        many), `distinct_prompts`, `truncated_rows`, `config` and `parts`, a list of name, row_start, row_stop, sha256.

    Raises:
        InputError: the template fails on a class, or the table has another shard size.
        WorkError: a part cannot be written, or the directory belongs to another recipe.
    """
    shard_size = config.generate.shard_size
    rows = num_rows(len(recipe.classes), config.images_per_class, shard_size)
    manifest = _existing(store, recipe, shard_size)
    if manifest is not None and manifest["rows"] >= rows:
        return manifest
    parts = [] if manifest is None else manifest["parts"]
    truncated_rows = 0 if manifest is None else manifest["truncated_rows"]
    distinct = {digest for part in parts for digest in _prompt_digests(store, recipe, part)}
    prompt_rows = PromptRows(recipe)
    for start, stop in _part_ranges(parts[-1]["row_stop"] if parts else 0, rows, shard_size):
        table = prompt_rows.table(start, stop)
        distinct |= _digests(table["prompt"])
        truncated_rows += pc.sum(table["truncated"]).as_py()
        parts = [*parts, _write_part(store, recipe, table, start, shard_size)]
    manifest = {
        "kind": "prompts",
        "recipe_hash": recipe.hash,
        "recipe": recipe.identity,
        "row_format": ROW_FORMAT,
        "shard_size": shard_size,
        "rows": rows,
        "classes": len(recipe.classes),
        "scenes": len(recipe.backgrounds),
        "distinct_prompts": len(distinct),
        "truncated_rows": truncated_rows,
        "parts": parts,
        "config": config.model_dump(mode="json"),
    }
    store.write_json(f"{recipe.prompts_dir}/{MANIFEST}", manifest)
    return manifest


def tracked_prompt_table(config: RunConfig, recipe: Recipe, store: Store) -> dict[str, Any]:
    """As `ensure_prompt_table`, and then a run of MLflow's for it, which an image set's run links to.

    Raises:
        InputError: as `ensure_prompt_table`, or MLflow cannot be used; the table is there then.
        WorkError: as `ensure_prompt_table`.
    """
    manifest = ensure_prompt_table(config, recipe, store)
    params = {"recipe_hash": recipe.hash, "classes": config.classes, **config.recipe.model_dump(mode="json")}
    with tracked_run(config, store, "build_prompts", recipe.id, params, {}) as run:
        numbers = {name: manifest[name] for name in ("distinct_prompts", "truncated_rows")}
        run.log_metrics(numbers, step=manifest["rows"])
    return manifest


def first_prompts(store: Store, recipe: Recipe, manifest: dict[str, Any], count: int) -> list[str]:
    """The prompts of the table's first rows."""
    batches = _prompt_batches(store, recipe, manifest["parts"][0])
    prompts: list[str] = next(batches).slice(0, count).to_pylist()
    return prompts


def _existing(store: Store, recipe: Recipe, shard_size: int) -> dict[str, Any] | None:
    path = f"{recipe.prompts_dir}/{MANIFEST}"
    if not store.exists(path):
        return None
    manifest = store.read_json(path)
    if manifest["recipe_hash"] != recipe.hash:
        raise WorkError(f"{store.uri(path)} belongs to recipe {manifest['recipe_hash']}, not {recipe.hash}; move it")
    check_row_format(manifest, store.uri(recipe.prompts_dir))
    if manifest["shard_size"] != shard_size:
        raise InputError(
            f"{store.uri(recipe.prompts_dir)} has shards of {manifest['shard_size']} rows, the config {shard_size}; "
            f"give --set generate.shard_size={manifest['shard_size']}, or another --root"
        )
    lost = {part["name"] for part in manifest["parts"]} - set(store.list_names(recipe.prompts_dir))
    if lost:
        raise WorkError(f"{store.uri(recipe.prompts_dir)} lost {min(lost)}; remove its {MANIFEST} and run again")
    return manifest


def _part_ranges(start: int, rows: int, shard_size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the parts that cover rows start to `rows`, whole shards each."""
    part_rows = max(1, MAX_PART_ROWS // shard_size) * shard_size
    for first in range(start, rows, part_rows):
        yield first, min(first + part_rows, rows)


def _write_part(store: Store, recipe: Recipe, table: pa.Table, start: int, shard_size: int) -> dict[str, Any]:
    stop = start + table.num_rows
    name = f"part-{start:012d}-{stop:012d}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=shard_size, compression="zstd")
    data = bytes(sink.getvalue())
    store.write_bytes(f"{recipe.prompts_dir}/{name}", data)
    return {"name": name, "row_start": start, "row_stop": stop, "sha256": sha256_bytes(data)}


def _prompt_batches(store: Store, recipe: Recipe, part: dict[str, Any]) -> Iterator[pa.Array]:
    file_system, path = store.filesystem(f"{recipe.prompts_dir}/{part['name']}")
    with pq.ParquetFile(path, filesystem=file_system) as file:
        for batch in file.iter_batches(columns=["prompt"]):
            yield batch.column(0)


def _prompt_digests(store: Store, recipe: Recipe, part: dict[str, Any]) -> set[bytes]:
    return set().union(*(_digests(column) for column in _prompt_batches(store, recipe, part)))


def _digests(prompts: pa.Array | pa.ChunkedArray) -> set[bytes]:
    """16 bytes for each different prompt: what counting them over all parts keeps in memory."""
    return {hashlib.blake2b(text.encode(), digest_size=16).digest() for text in prompts.unique().to_pylist()}
