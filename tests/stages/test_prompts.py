"""Prompt tables on disk: built, extended, gone on with, never mixed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import PROMPT_SCHEMA
from pipeline.stages import prompts as prompts_module
from pipeline.stages.prompts import ensure_prompt_table, first_prompts

SHARD_SIZE = 8
Build = Callable[..., dict[str, Any]]


def config(images_per_class: int, **changes: Any) -> RunConfig:
    values = {
        "images_per_class": images_per_class,
        "recipe": {"template": "c, h_c inside b"},
        "generate": {"shard_size": SHARD_SIZE, "batch_size": 4},
    }
    return RunConfig.model_validate({**values, **changes})


@pytest.fixture
def recipe() -> Recipe:
    return resolve_recipe(config(1))


@pytest.fixture
def build(store: Store, recipe: Recipe) -> Build:
    return lambda images_per_class: ensure_prompt_table(config(images_per_class), recipe, store)


def read(store: Store, recipe: Recipe, manifest: dict[str, Any]) -> pa.Table:
    parts = [store.read_bytes(f"{recipe.prompts_dir}/{part['name']}") for part in manifest["parts"]]
    return pa.concat_tables([pq.read_table(pa.BufferReader(part)) for part in parts])


def files(store: Store, recipe: Recipe) -> dict[str, tuple[int, bytes]]:
    folder = Path(store.root) / recipe.prompts_dir
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_a_table_holds_whole_shards_as_row_groups(store: Store, recipe: Recipe, build: Build) -> None:
    manifest = build(3)  # 30 images: 4 shards of 8
    assert (manifest["rows"], manifest["shard_size"], manifest["classes"]) == (32, SHARD_SIZE, 10)
    assert [part["name"] for part in manifest["parts"]] == ["part-000000000000-000000000032.parquet"]
    file = pq.ParquetFile(pa.BufferReader(store.read_bytes(f"{recipe.prompts_dir}/{manifest['parts'][0]['name']}")))
    assert file.schema_arrow == PROMPT_SCHEMA
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == [SHARD_SIZE] * 4


def test_manifest_counts_are_those_of_the_table(store: Store, recipe: Recipe, build: Build) -> None:
    manifest = build(20)
    table = read(store, recipe, manifest)
    assert manifest["rows"] == table.num_rows == 200
    assert manifest["distinct_prompts"] == len(set(table["prompt"].to_pylist()))
    assert manifest["truncated_rows"] == 0
    for part in manifest["parts"]:
        assert part["sha256"] == sha256_bytes(store.read_bytes(f"{recipe.prompts_dir}/{part['name']}"))
    assert store.read_json(f"{recipe.prompts_dir}/manifest.json") == manifest
    assert manifest["recipe"] == recipe.identity


def test_cut_prompts_are_counted(store: Store) -> None:
    settings = config(2, recipe={"template": "{{ c }}{{ ' very' * 80 }}"})
    assert ensure_prompt_table(settings, resolve_recipe(settings), store)["truncated_rows"] == 24


def test_a_second_call_touches_nothing(store: Store, recipe: Recipe, build: Build) -> None:
    manifest = build(3)
    before = files(store, recipe)
    assert build(3) == manifest
    assert build(1) == manifest
    assert files(store, recipe) == before


def test_growing_adds_parts_and_equals_one_build(store: Store, recipe: Recipe, build: Build, tmp_path: Path) -> None:
    small = build(3)
    before = files(store, recipe)
    grown = build(30)
    after = files(store, recipe)
    assert grown["parts"][: len(small["parts"])] == small["parts"]
    assert {name: after[name] for name in before if name.startswith("part")} == {
        name: content for name, content in before.items() if name.startswith("part")
    }
    other = Store.open(str(tmp_path / "other"))
    whole = ensure_prompt_table(config(30), recipe, other)
    assert read(store, recipe, grown).equals(read(other, recipe, whole))
    keys = ("rows", "distinct_prompts", "truncated_rows", "recipe_hash")
    assert [grown[key] for key in keys] == [whole[key] for key in keys]


def test_a_large_table_is_cut_into_parts_of_whole_shards(
    store: Store, recipe: Recipe, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts_module, "MAX_PART_ROWS", 20)  # two shards of 8
    parts = build(5)["parts"]  # 50 images: 7 shards
    assert [(part["row_start"], part["row_stop"]) for part in parts] == [(0, 16), (16, 32), (32, 48), (48, 56)]


def test_a_killed_build_is_gone_on_with(
    store: Store, recipe: Recipe, build: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(prompts_module, "MAX_PART_ROWS", SHARD_SIZE)
    write, calls = Store.write_bytes, 0

    def killed(self: Store, path: str, data: bytes, patience_s: float | None = None) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise WorkError("killed")
        write(self, path, data, patience_s)

    monkeypatch.setattr(Store, "write_bytes", killed)
    with pytest.raises(WorkError):
        build(3)
    assert not store.exists(f"{recipe.prompts_dir}/manifest.json")
    manifest = build(3)
    other = Store.open(str(tmp_path / "other"))
    assert manifest["parts"] == ensure_prompt_table(config(3), recipe, other)["parts"]


def test_another_shard_size_is_an_error(store: Store, recipe: Recipe, build: Build) -> None:
    build(3)
    with pytest.raises(InputError, match=r"shards of 8 rows, the config 16; give --set generate\.shard_size=8"):
        ensure_prompt_table(config(3, generate={"shard_size": 16, "batch_size": 4}), recipe, store)


def test_a_lost_part_is_an_error(store: Store, recipe: Recipe, build: Build) -> None:
    name = build(3)["parts"][0]["name"]
    (Path(store.root) / recipe.prompts_dir / name).unlink()
    with pytest.raises(WorkError, match=f"lost {name}"):
        build(3)


def test_a_table_of_another_recipe_is_never_used(store: Store, recipe: Recipe, build: Build) -> None:
    path = Path(store.root) / recipe.prompts_dir / "manifest.json"
    manifest = build(3)
    path.write_text(json.dumps({**manifest, "recipe_hash": recipe.hash[:16] + "0" * 48}))
    with pytest.raises(WorkError, match="belongs to recipe"):
        build(3)


def test_first_prompts_are_the_tables_first(store: Store, recipe: Recipe, build: Build) -> None:
    manifest = build(3)
    assert first_prompts(store, recipe, manifest, 5) == read(store, recipe, manifest)["prompt"].to_pylist()[:5]
