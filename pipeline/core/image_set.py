"""An image set on disk: which shards are published (the ledger), what each holds, and who may write to it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.config import GenerateConfig, RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.extra_shards import is_extra, split_extra_shard
from pipeline.core.flatten import flatten
from pipeline.core.identity import num_shards
from pipeline.core.lease import lease
from pipeline.core.recipe import Recipe
from pipeline.core.schema import FAILED, OK, ROW_FORMAT

IDENTITY = "identity.json"
"""Written first and never changed: the recipe, and the shapes that a set keeps for life."""

SHAPES = ("shard_size", "batch_size", "engine")
"""Settings of `GenerateConfig` that a set keeps: the last bits of its pixels depend on them."""

SUMMARY_KEY = b"synthclones.shard"
"""Key of a shard's summary in its Parquet footer."""

_READERS = 16  # footers read at the same time: object stores answer in tens of milliseconds each
_READ_AHEAD = 1024  # footers


@dataclass(frozen=True)
class ShardSummary:
    """What a shard's footer says of it.

    Args:
        shard: its number.
        row_start: its first row in the set; of an extra shard, among the extra images of its class.
        rows: how many it has.
        counts: rows by status; they add up to `rows`.
        reasons: failed rows by reason.
        rows_sha256: over image id, status and sha256 of every row, in order.
        started: when its actor began it, seconds since 1970.
        finished: when its last image was encoded.
        environment: device, threads and library versions that made it: with the batch shape, what the bits depend on.
        engine_s: seconds in which the engine worked for this shard; None, as the next two, in shards of older versions.
        stored_bytes: of its encoded images.
        truncated: prompts of more than CLIP's 77 tokens.
    """

    shard: int
    row_start: int
    rows: int
    counts: dict[str, int]
    reasons: dict[str, int]
    rows_sha256: str
    started: float
    finished: float
    environment: dict[str, str] = field(default_factory=dict)
    engine_s: float | None = None
    stored_bytes: int | None = None
    truncated: int | None = None

    @property
    def actor_s(self) -> float:
        """Seconds of work of one actor. Of older shards all of its time, too long where it made two at once."""
        return self.finished - self.started if self.engine_s is None else self.engine_s

    def footer(self) -> dict[bytes, bytes]:
        """The key-value metadata of the shard's Parquet schema."""
        return {SUMMARY_KEY: json.dumps(self.__dict__, sort_keys=True).encode()}


def shard_path(images_dir: str, shard: int) -> str:
    """Path of a shard under the storage root; extra ones lie apart, where no reader of the uniform part meets them."""
    if is_extra(shard):
        class_index, block = split_extra_shard(shard)
        return f"{images_dir}/extra/class-{class_index:06d}-{block:06d}.parquet"
    return f"{images_dir}/shards/shard-{shard:06d}.parquet"


def published_shards(store: Store, images_dir: str) -> set[int]:
    """The ledger: numbers of the uniform shards that are there."""
    names = store.list_names(f"{images_dir}/shards")
    found = (re.fullmatch(r"shard-(\d{6,})\.parquet", name) for name in names)
    return {int(match[1]) for match in found if match}


def claim_image_set(config: RunConfig, recipe: Recipe, store: Store) -> None:
    """Write the set's identity, or check that it is this recipe's and keeps its shapes.

    Of two that begin a set at once, one writes and the other one checks: a lease stands between look and write.

    Raises:
        InputError: the set was begun with other `SHAPES`, or by a version with other columns.
        WorkError: the directory belongs to another recipe.
    """
    path = f"{recipe.images_dir}/{IDENTITY}"
    shapes = config.generate.model_dump(mode="json", include=set(SHAPES))
    if not store.exists(path):
        about = {"recipe_hash": recipe.hash, "recipe": recipe.identity, "row_format": ROW_FORMAT}
        with lease(store, f"{recipe.images_dir}/claim", until=lambda: store.exists(path)) as is_held:
            if is_held and not store.exists(path):
                store.write_json(path, {**about, **shapes})
    identity = _sound_identity(store, path)
    if identity["recipe_hash"] != recipe.hash:
        raise WorkError(
            f"{store.uri(path)} belongs to recipe {identity['recipe_hash']}, not {recipe.hash}; move it away"
        )
    check_row_format(identity, store.uri(recipe.images_dir))
    begun = flatten({name: identity[name] for name in SHAPES})
    for name, value in flatten(shapes).items():
        if begun[name] != value:
            said = json.dumps(begun[name]).strip('"')
            raise InputError(
                f"{store.uri(recipe.images_dir)} was begun with {name} {said}, the config says {value}; "
                f"give --set generate.{name}={said}, or another --root"
            )


def as_begun(config: RunConfig, identity: Mapping[str, Any]) -> RunConfig:
    """The config with the shapes that a set was begun with, whatever it says itself."""
    shapes = GenerateConfig.model_validate({name: identity[name] for name in SHAPES})
    kept = {name: getattr(shapes, name) for name in SHAPES}
    return config.model_copy(update={"generate": config.generate.model_copy(update=kept)})


def check_row_format(identity: Mapping[str, Any], where: str) -> None:
    """Raises `InputError` when a set's shards have other columns than this version writes."""
    begun = identity.get("row_format", 1)
    if begun != ROW_FORMAT:
        raise InputError(
            f"{where} was begun with row format {begun}, this version writes {ROW_FORMAT}; give another --root, or go "
            "on with the version that began it"
        )


def read_identity(store: Store, images_dir: str) -> dict[str, Any]:
    """What a set was begun as: recipe, shard_size, batch_size. Raises `InputError` when there is no such set."""
    path = f"{images_dir}/{IDENTITY}"
    if not store.exists(path):
        raise InputError(
            f"{store.uri(images_dir)} is not there; run `python -m jobs.generate` with the same settings first"
        )
    return _sound_identity(store, path)


def _sound_identity(store: Store, path: str) -> dict[str, Any]:
    mend = "remove it, then run `python -m jobs.generate` with the settings that the set was begun with"
    identity = store.read_json(path, mend)
    sizes = {name: identity.get(name) for name in ("shard_size", "batch_size")}
    wrong = [name for name in ("recipe_hash", *SHAPES) if name not in identity]
    wrong += [name for name, size in sizes.items() if not isinstance(size, int) or size < 1]
    if wrong:
        raise WorkError(f"{store.uri(path)} is damaged (no {wrong[0]}); {mend}")
    return identity


def footer_summary(metadata: dict[bytes, bytes]) -> ShardSummary:
    """The summary in a shard's key-value metadata. Raises `KeyError`, `TypeError` or `ValueError` when it is none."""
    return ShardSummary(**json.loads(metadata[SUMMARY_KEY]))


def read_summary(store: Store, images_dir: str, shard: int) -> ShardSummary:
    """The summary in a shard's footer. Raises `WorkError` when the file is damaged."""
    path = shard_path(images_dir, shard)
    file_system, full = store.filesystem(path)
    try:
        schema = store.read_with(path, lambda: pq.read_schema(full, filesystem=file_system))
        return footer_summary(schema.metadata)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise damaged_shard(store.uri(path), error) from error


def damaged_shard(where: str, error: object) -> WorkError:
    """The error of a shard whose content cannot be used, with its mend."""
    return WorkError(
        f"{where} is damaged ({' '.join(str(error).split())[:120]}); `python -m jobs.verify --repair` with the same "
        "settings makes it again"
    )


def read_columns(store: Store, path: str, columns: list[str]) -> pa.Table:
    """Some columns of a shard. Raises `WorkError` when it is damaged."""
    file_system, full = store.filesystem(path)
    try:
        table = store.read_with(path, lambda: pq.ParquetFile(full, filesystem=file_system).read(columns))
    except (pa.ArrowException, OSError) as error:
        raise damaged_shard(store.uri(path), error) from error
    if "image_id" in columns and "image_id" not in table.column_names:  # columns that came later may be missing
        raise damaged_shard(store.uri(path), "no column image_id")
    return table


def read_summaries(store: Store, images_dir: str, shards: Iterable[int]) -> list[ShardSummary]:
    """The summaries of several shards, in the given order. Raises `WorkError` as `read_summary`."""
    return list(each_summary(store, images_dir, shards))


def each_summary(store: Store, images_dir: str, shards: Iterable[int]) -> Iterator[ShardSummary]:
    """As `read_summaries`, a few at a time in memory: at 1.2 KB each, all would be 0.5 GB for 100 million images."""
    numbers = list(shards)
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(numbers), _READ_AHEAD):
            yield from pool.map(partial(read_summary, store, images_dir), numbers[start : start + _READ_AHEAD])


def prefix_shards(store: Store, recipe: Recipe, images_per_class: int) -> tuple[list[int], int]:
    """The shards that hold the first `images_per_class` images of each class, and the set's shard size.

    The last shard may hold more: readers leave out rows whose index inside the class is `images_per_class` or more.

    Raises:
        InputError: the set is not there, or has fewer images.
    """
    images_dir = recipe.images_dir
    shard_size = int(read_identity(store, images_dir)["shard_size"])
    wanted = range(num_shards(len(recipe.classes), images_per_class, shard_size))
    published = published_shards(store, images_dir)
    missing = [shard for shard in wanted if shard not in published]
    if missing:
        raise InputError(
            f"{store.uri(images_dir)} lacks {len(missing)} of the {len(wanted)} shards for {images_per_class} images "
            f"per class; run `python -m jobs.generate --images-per-class {images_per_class}` with the same settings"
        )
    return list(wanted), shard_size


def set_totals(summaries: Iterable[ShardSummary]) -> dict[str, Any]:
    """Counts, content hash and working time of shards in order, for the set's manifest; in one pass.

    `seconds` is the time in which at least one shard was being made, over all sessions, killed ones included;
    `images_per_s` is rows over it, `actor_seconds` the working time of all actors. Start-up is in none of them.
    `environments`: each environment that made shards, with their number; more than one means last bits may differ.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    made_by: Counter[str] = Counter()
    intervals: list[tuple[float, float]] = []
    hashes: list[str] = []
    rows, actor_s = 0, 0.0
    for summary in summaries:
        rows += summary.rows
        actor_s += summary.actor_s
        counts.update(summary.counts)
        reasons.update(summary.reasons)
        made_by[json.dumps(summary.environment, sort_keys=True)] += 1
        intervals.append((summary.started, summary.finished))
        hashes.append(summary.rows_sha256)
    assert rows == sum(counts.values()), (rows, counts)
    seconds = _covered_seconds(intervals)
    return {
        "rows": rows,
        "ok": counts[OK],
        "failed": counts[FAILED],
        "counts": dict(sorted(counts.items())),
        "failure_reasons": dict(reasons.most_common(20)),
        "set_sha256": sha256_bytes("\n".join(hashes).encode()),
        "seconds": seconds,
        "actor_seconds": actor_s,
        "images_per_s": rows / seconds if seconds else 0.0,
        "environments": [{**json.loads(text), "shards": count} for text, count in sorted(made_by.items())],
    }


def _covered_seconds(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of time intervals."""
    total, reached = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, reached))
        reached = max(reached, stop)
    return total
