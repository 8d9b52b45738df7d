"""Is a published shard what its ledger and its recipe say? Every image is decoded; nothing is believed."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.extra_shards import first_row, shard_ids
from pipeline.core.identity import noise_seed
from pipeline.core.image_set import ShardSummary, footer_summary, shard_path
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe
from pipeline.core.schema import FAILED, IMAGE_SCHEMA, OK, PROMPT_SCHEMA
from pipeline.core.shard_maker import rows_digest

MAX_NAMED = 3
"""Rows that a fault names; the rest is counted."""

# Tokens are counted by a library, whose versions may count otherwise, and decide no image and no label.
_DRAWN = [name for name in PROMPT_SCHEMA.names if name not in ("image_id", "seed", "token_count", "truncated")]
_prompts: dict[str, PromptRows] = {}


def check_shard(store: Store, recipe: Recipe, shard: int, shard_rows: int) -> list[str]:
    """What is wrong with a shard that must have `shard_rows` rows, one line each; empty when it is sound.

    Checked: the file is whole Parquet of the schema; its footer's numbers; every image id and noise seed of its range
    of rows, in order (so no gap and no double); label, words, prompt and guidance of each; sha256, decodability and
    size of every image.

    Raises:
        WorkError: the storage does not answer. A damaged shard is no error here.
    """
    path = shard_path(recipe.images_dir, shard)
    try:
        table = store.read_table(path)
        summary = footer_summary(table.schema.metadata)
        rows = table.to_pylist()  # text that is no UTF-8 shows only here
    except FileNotFoundError:
        return ["it is not there"]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        return [f"it cannot be read: {' '.join(str(error).split())[:120]}"]
    if not table.schema.remove_metadata().equals(IMAGE_SCHEMA.remove_metadata()):
        return ["its columns are not those of an image set"]
    return [*_footer_faults(summary, shard, shard_rows, rows), *_named("row", _row_faults(recipe, shard, rows))]


def _footer_faults(summary: ShardSummary, shard: int, shard_rows: int, rows: list[dict[str, Any]]) -> Iterator[str]:
    expected = {
        "shard": shard,
        "row_start": first_row(shard, shard_rows),
        "rows": shard_rows,
        "counts": dict(Counter(row["status"] for row in rows)),
        "reasons": dict(Counter(row["reason"] for row in rows if row["status"] == FAILED)),
        "rows_sha256": rows_digest(rows),
    }
    if len(rows) != shard_rows:
        yield f"it holds {len(rows)} rows instead of {shard_rows}"
    for name, value in expected.items():
        if (said := getattr(summary, name)) != value:
            yield f"its footer says {name} {said}, its rows say {value}"


def _row_faults(recipe: Recipe, shard: int, rows: list[dict[str, Any]]) -> Iterator[str]:
    """One line for each wrong row."""
    identifiers = shard_ids(shard, len(rows), recipe.permutation)
    prompts = _prompt_rows(recipe).table_of(identifiers).to_pylist() if rows else []
    start = first_row(shard, len(rows))
    for number, (identifier, prompt, row) in enumerate(zip(identifiers, prompts, rows, strict=True), start=start):
        if row["image_id"] != identifier:
            yield f"{number} has image_id {row['image_id']} instead of {identifier}"
        elif row["seed"] != noise_seed(recipe.hash, identifier):
            yield f"{number} has another seed than image {identifier} has in this recipe"
        elif name := next((name for name in _DRAWN if row[name] != prompt[name]), None):
            yield f"{number} (image {identifier}) has {name} {row[name]!r:.60} instead of {prompt[name]!r:.60}"
        elif fault := image_fault(row):
            yield f"{number} (image {identifier}): {fault}"


def _prompt_rows(recipe: Recipe) -> PromptRows:
    """Of the recipe; kept for the process's next shard, since making them renders every class."""
    if recipe.hash not in _prompts:
        _prompts.clear()
        _prompts[recipe.hash] = PromptRows(recipe)
    return _prompts[recipe.hash]


def image_fault(row: dict[str, Any]) -> str | None:
    """What is wrong with the stored image of a row, None when nothing is; a failed row must have none."""
    data = (row["image"] or {}).get("bytes")
    if row["status"] == FAILED:
        return None if data is None else "status failed with an image"
    if data is None:
        return f"status {row['status']} without an image"
    if row["status"] == OK and row["reason"] is not None:
        return f"status ok with the reason {row['reason']!r}"
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        return "its bytes do not have its sha256"
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            size = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises on bad bytes
        return f"its image cannot be decoded: {error}"
    return None if size == (row["width"], row["height"]) else f"its image is {size[0]}x{size[1]} pixels"


def _named(what: str, faults: Iterator[str]) -> list[str]:
    """The first faults in words and the number of the others."""
    every = list(faults)
    named = [f"{what} {fault}" for fault in every[:MAX_NAMED]]
    return named if len(every) <= MAX_NAMED else [*named, f"{len(every) - MAX_NAMED} more {what}s"]
