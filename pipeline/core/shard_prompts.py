"""The rows that a shard is made from: out of the prompt table, or, of extra images, out of the recipe itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from pipeline.core.artifact import Store
from pipeline.core.config import GenerateConfig
from pipeline.core.extra_shards import is_extra, rows_in, shard_ids
from pipeline.core.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.core.prompt_table import PromptRows

Row = dict[str, Any]


class ShardPrompts:
    """Rows (columns of `schema.PROMPT_SCHEMA`) of any shard of a set.

    Args:
        settings: the set's shapes.
        store: the storage root.
        prompts_dir: of the prompt table.
        parts: of the prompt table's manifest.
        recipe: of the set; only extra shards need it.
    """

    def __init__(
        self,
        settings: GenerateConfig,
        store: Store,
        prompts_dir: str,
        parts: Sequence[Mapping[str, Any]],
        recipe: Recipe | None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._prompts_dir = prompts_dir
        self._parts = parts
        self._recipe = recipe

    def rows_in(self, shard: int) -> int:
        """How many rows a shard has."""
        return rows_in(shard, self._settings.shard_size, self._settings.batch_size)

    def rows(self, shard: int) -> list[Row]:
        """The rows of a shard, in order."""
        return self._extra(shard) if is_extra(shard) else self._of_the_table(shard)

    def _of_the_table(self, shard: int) -> list[Row]:
        size = self._settings.shard_size
        first = shard * size
        part = next(part for part in self._parts if part["row_start"] <= first < part["row_stop"])
        name = f"{self._prompts_dir}/{part['name']}"
        file_system, path = self._store.filesystem(name)

        def read() -> list[Row]:
            with pq.ParquetFile(path, filesystem=file_system) as file:
                found: list[Row] = file.read_row_group((first - part["row_start"]) // size).to_pylist()
                return found

        rows = self._store.read_with(name, read)
        assert len(rows) == size, (shard, len(rows))
        return rows

    def _extra(self, shard: int) -> list[Row]:
        assert self._recipe is not None
        identifiers = shard_ids(shard, self.rows_in(shard), self._recipe.permutation)
        rows: list[Row] = self._renderer.table_of(identifiers).to_pylist()
        return rows

    @cached_property
    def _renderer(self) -> PromptRows:
        from pipeline.core.prompt_table import PromptRows  # it renders every class at once: only where extras are made

        assert self._recipe is not None
        return PromptRows(self._recipe)
