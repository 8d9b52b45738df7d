import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import EngineConfig, GenerateConfig, ModelConfig, RecipeConfig, RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import (
    IDENTITY,
    ShardSummary,
    as_begun,
    claim_image_set,
    prefix_shards,
    published_shards,
    read_columns,
    read_identity,
    read_summary,
    set_totals,
    shard_path,
)
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import ROW_FORMAT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "runs"))


@pytest.fixture
def config(tiny_model: Path) -> RunConfig:
    return RunConfig(recipe=RecipeConfig(model=ModelConfig(id=str(tiny_model))), generate=GenerateConfig(shard_size=25))


@pytest.fixture
def recipe(config: RunConfig) -> Recipe:
    return resolve_recipe(config)


def summary(shard: int = 0, **values: object) -> ShardSummary:
    defaults = {"row_start": 0, "rows": 10, "counts": {"ok": 10}, "reasons": {}, "rows_sha256": f"{shard}"}
    return ShardSummary(**{"shard": shard, "started": 0.0, "finished": 1.0, **defaults, **values})


def test_the_ledger_is_what_is_published_under_fixed_names(store: Store):
    strangers = (".shard-000004.parquet.x.tmp", "shard-000005-copy.parquet", "notes.txt")
    for name in ("shard-000003.parquet", "shard-1234567.parquet", *strangers):
        store.write_bytes(f"images/a/shards/{name}", b"x")
    assert published_shards(store, "images/a") == {3, 1234567}
    assert store.exists(shard_path("images/a", 3))


def test_a_set_keeps_the_shapes_it_was_begun_with(store: Store, config: RunConfig, recipe: Recipe):
    claim_image_set(config, recipe, store)
    claim_image_set(config, recipe, store)
    other = config.model_copy(update={"generate": GenerateConfig(shard_size=50)})
    with pytest.raises(InputError, match=r"shard_size 25, .* 50; give --set generate.shard_size=25"):
        claim_image_set(other, recipe, store)


def test_of_two_that_begin_a_set_at_once_with_other_shapes_one_is_refused(
    store: Store, config: RunConfig, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
):
    """Both have looked, and seen no set, before either writes."""
    both_looked, exists, looked = threading.Barrier(2), Store.exists, threading.local()

    def slow(store: Store, path: str) -> bool:
        found = exists(store, path)
        if path.endswith(IDENTITY) and not hasattr(looked, "once"):
            looked.once = True
            both_looked.wait(10)
        return found

    monkeypatch.setattr(Store, "exists", slow)
    configs = [config.model_copy(update={"generate": GenerateConfig(shard_size=size)}) for size in (25, 50)]
    with ThreadPoolExecutor(2) as pool:
        errors = [claim.exception() for claim in [pool.submit(claim_image_set, c, recipe, store) for c in configs]]
    monkeypatch.undo()
    begun = read_identity(store, recipe.images_dir)["shard_size"]
    refused = [config.generate.shard_size for config, error in zip(configs, errors, strict=True) if error]
    assert [begun, *refused] in ([25, 50], [50, 25])
    assert any("was begun with shard_size" in str(error) for error in errors)


def test_a_set_keeps_the_engine_options_it_was_begun_with(store: Store, config: RunConfig, recipe: Recipe):
    claim_image_set(config, recipe, store)
    engine = EngineConfig(channels_last=True)
    other = config.model_copy(update={"generate": GenerateConfig(shard_size=25, engine=engine)})
    with pytest.raises(InputError, match=r"give --set generate.engine.channels_last=false, or"):
        claim_image_set(other, recipe, store)
    kept = as_begun(other, read_identity(store, recipe.images_dir)).generate
    assert (kept.shard_size, kept.engine) == (25, EngineConfig())


def test_a_set_of_an_older_version_is_not_mixed_with_new_columns(store: Store, config: RunConfig, recipe: Recipe):
    claim_image_set(config, recipe, store)
    path = f"{recipe.images_dir}/{IDENTITY}"
    first_version = {key: value for key, value in store.read_json(path).items() if key != "row_format"}
    store.write_json(path, first_version)
    with pytest.raises(InputError, match=rf"begun with row format 1, this version writes {ROW_FORMAT}; give another"):
        claim_image_set(config, recipe, store)


def test_a_folder_of_another_recipe_is_left_alone(store: Store, config: RunConfig, recipe: Recipe):
    claim_image_set(config, recipe, store)
    path = f"{recipe.images_dir}/{IDENTITY}"
    store.write_json(path, {**store.read_json(path), "recipe_hash": "f" * 64})
    with pytest.raises(WorkError, match="belongs to recipe ffff"):
        claim_image_set(config, recipe, store)


def test_a_prefix_names_just_the_shards_it_needs(store: Store, config: RunConfig, recipe: Recipe):
    claim_image_set(config, recipe, store)
    for shard in range(4):
        store.write_bytes(shard_path(recipe.images_dir, shard), b"x")
    assert prefix_shards(store, recipe, 6) == ([0, 1, 2], 25)  # 60 rows


def test_a_set_that_is_missing_or_small_says_what_to_run(store: Store, config: RunConfig, recipe: Recipe):
    with pytest.raises(InputError, match=r"run `python -m jobs.generate`"):
        prefix_shards(store, recipe, 1)
    claim_image_set(config, recipe, store)
    store.write_bytes(shard_path(recipe.images_dir, 1), b"x")
    with pytest.raises(InputError, match=r"lacks 1 of the 2 shards .* --images-per-class 5"):
        prefix_shards(store, recipe, 5)


def test_totals_add_up():
    made = [summary(0), summary(1, counts={"ok": 7, "failed": 2, "nsfw": 1}, reasons={"boom": 2})]
    totals = set_totals(made)
    assert (totals["rows"], totals["ok"], totals["failed"]) == (20, 17, 2)
    assert totals["counts"] == {"failed": 2, "nsfw": 1, "ok": 17} and totals["failure_reasons"] == {"boom": 2}


def test_the_content_hash_depends_on_rows_and_order_alone():
    first = set_totals([summary(0), summary(1)])["set_sha256"]
    assert first == set_totals([summary(0, finished=9.0), summary(1, started=5.0)])["set_sha256"]
    assert first != set_totals([summary(1), summary(0)])["set_sha256"]


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [([(0, 10), (0, 10)], 10), ([(0, 10), (5, 12)], 12), ([(0, 4), (100, 106)], 10), ([(0, 10), (2, 3)], 10)],
)
def test_seconds_are_the_time_in_which_anything_was_made(intervals: list[tuple[float, float]], seconds: float):
    totals = set_totals([summary(i, started=a, finished=b) for i, (a, b) in enumerate(intervals)])
    assert totals["seconds"] == seconds and totals["images_per_s"] == 20 / seconds


def test_actor_seconds_are_the_engines_work_whatever_the_pool():
    two_at_once = [summary(0, finished=10.0, engine_s=4.0), summary(1, finished=10.0, engine_s=5.0)]
    of_an_older_version = summary(2, started=20.0, finished=23.0)
    assert set_totals([*two_at_once, of_an_older_version])["actor_seconds"] == 4 + 5 + 3


@pytest.mark.parametrize("data", [b"", b"PAR1 torn", b"\0" * 500])
def test_a_damaged_shard_is_named(store: Store, data: bytes):
    store.write_bytes(shard_path("images/a", 2), data)
    with pytest.raises(WorkError, match=r"shard-000002.parquet is damaged .*jobs.verify --repair"):
        read_summary(store, "images/a", 2)


@pytest.mark.parametrize(
    ("change", "says"), [(None, "mapping"), ({"shard_size": "x"}, "shard_size"), ({"batch_size": 0}, "batch_size")]
)
def test_an_identity_that_is_none_is_named(
    store: Store, config: RunConfig, recipe: Recipe, change: dict[str, object] | None, says: str
) -> None:
    claim_image_set(config, recipe, store)
    path = f"{recipe.images_dir}/{IDENTITY}"
    store.write_json(path, [] if change is None else {**store.read_json(path), **change})
    for reads in (lambda: read_identity(store, recipe.images_dir), lambda: claim_image_set(config, recipe, store)):
        with pytest.raises(WorkError, match=rf"identity\.json is damaged \(no {says}\); remove it"):
            reads()


def test_a_table_that_is_no_shard_is_named(store: Store) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"other": [1]}), sink)
    store.write_bytes("images/ab/shard-000000.parquet", sink.getvalue())
    with pytest.raises(WorkError, match=r"shard-000000\.parquet is damaged \(no column image_id\)"):
        read_columns(store, "images/ab/shard-000000.parquet", ["image_id"])
