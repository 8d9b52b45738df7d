"""The sides of writing: a shard's rows through `shard_bytes` and the store, or a ready table through bare pyarrow."""

from __future__ import annotations

import os
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


def run_shard_writes(config: RunConfig) -> Measured:
    """As the stage publishes: rows as dicts, bytes built first, then temporary name, fsync, rename."""
    rows = _rows(config)
    summary = summarize(0, 0, rows, time.time())
    return _timed(lambda root, number: Store(root).write_bytes(f"{number}.parquet", shard_bytes(rows, summary)))


def run_bare_pyarrow(config: RunConfig) -> Measured:
    """`pyarrow.parquet.write_table` of the ready table with the same options to the file itself, then fsync."""
    table = pa.Table.from_pylist(_rows(config), schema=IMAGE_SCHEMA)

    def write(root: str, number: int) -> None:
        path = Path(root) / f"{number}.parquet"
        pq.write_table(table, path, **PARQUET_OPTIONS)
        file = os.open(path, os.O_RDWR)
        os.fsync(file)
        os.close(file)

    return _timed(write)


def _timed(write: Callable[[str, int], object]) -> Measured:
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        write(root, 0)  # the first one fills pyarrow's memory pool
        began = time.perf_counter()
        for number in range(1, WRITES + 1):
            write(root, number)
        seconds = time.perf_counter() - began
    megabytes_per_s = WRITES * SHARD_ROWS * IMAGE_BYTES / 1e6 / seconds
    return Measured(WRITES * SHARD_ROWS / seconds, seconds, {"megabytes_per_s": megabytes_per_s})


@lru_cache(maxsize=1)
def _images() -> list[bytes]:
    noise = np.random.default_rng(0)
    return [noise.bytes(IMAGE_BYTES) for _ in range(SHARD_ROWS)]


def _rows(config: RunConfig) -> list[Row]:
    prompts: list[dict[str, Any]] = PromptRows(resolve_recipe(config)).table(0, SHARD_ROWS).to_pylist()
    return [{**prompt, **ready_columns(data)} for prompt, data in zip(prompts, _images(), strict=True)]
