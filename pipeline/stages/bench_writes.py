"""Writing a shard's rows: through `shard_bytes` and the store, and through bare pyarrow."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import resolve_recipe
from pipeline.core.schema import IMAGE_SCHEMA
from pipeline.core.shard_maker import PARQUET_OPTIONS, Row, shard_bytes, summarize
from pipeline.stages.bench_null import ready_columns
from pipeline.stages.bench_sides import Measured

SHARD_ROWS = 256
IMAGE_BYTES = 83_000
"""A 512x512 photograph as a JPEG of quality 95: 21 MB a shard. The tiny images of a laptop's preset say little here."""
WRITES = 16


def alternate_writes(config: RunConfig) -> dict[str, Measured]:
    """Both sides, write by write in turn, since a disk's speed changes from second to second; the median write of each.

    Both start from the same rows as dicts. `shard_writes`: as the stage publishes: bytes built first, temporary name,
    fsync, rename, fsync of the folder. `bare_pyarrow`: `pyarrow.Table.from_pylist` and `pyarrow.parquet.write_table`
    with the same options to the file itself, and the same fsyncs.
    """
    rows = _rows(config)
    summary = summarize(0, 0, rows, time.time())
    seconds: dict[str, list[float]] = {"shard_writes": [], "bare_pyarrow": []}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        writes: dict[str, Callable[[str], object]] = {
            "shard_writes": lambda name: Store(root).write_bytes(name, shard_bytes(rows, summary)),
            "bare_pyarrow": lambda name: _write_bare(rows, Path(root) / name),
        }
        for number in range(WRITES + 1):
            for side, write in writes.items():
                started = time.perf_counter()
                write(f"{side}-{number}.parquet")
                seconds[side].append(time.perf_counter() - started)
    wall_s = time.perf_counter() - began
    measured = {}
    for side, each in seconds.items():
        write_s = statistics.median(each[1:])  # the first one fills pyarrow's memory pool
        besides = {"write_ms": 1000 * write_s, "fastest_ms": 1000 * min(each[1:])}
        measured[side] = Measured(SHARD_ROWS / write_s, wall_s, besides)
    return measured


def _write_bare(rows: list[Row], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), path, **PARQUET_OPTIONS)
    for synced in (path, path.parent):  # its name must survive a power cut too
        file = os.open(synced, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


@lru_cache(maxsize=1)
def _images() -> list[bytes]:
    noise = np.random.default_rng(0)
    return [noise.bytes(IMAGE_BYTES) for _ in range(SHARD_ROWS)]


def _rows(config: RunConfig) -> list[Row]:
    prompts: list[dict[str, Any]] = PromptRows(resolve_recipe(config)).table(0, SHARD_ROWS).to_pylist()
    return [{**prompt, **ready_columns(data)} for prompt, data in zip(prompts, _images(), strict=True)]
