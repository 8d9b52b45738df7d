"""Extra images through the pool: made once, resumed, grown, and no matter to the uniform part."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.extra_set import extra_manifest, published_extras
from pipeline.core.extra_shards import extra_shard
from pipeline.core.image_set import published_shards, read_summary, shard_path
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.bench_null import NullMakers
from pipeline.stages.extra_images import generate_extras
from pipeline.stages.generate import generate
from tests.bad_input import tree
from tests.finished_sets import make_set
from tests.tiny_sets import tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")
SHARDS = [extra_shard(1, 0), extra_shard(3, 0), extra_shard(3, 1)]


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> RunConfig:
    return tiny_config(tiny_model)


@pytest.fixture(scope="module")
def wnids(config: RunConfig) -> list[str]:
    return resolve_recipe(config).classes.wnids


@pytest.fixture(scope="module")
def made(config: RunConfig, ray_cluster: None, wnids: list[str], tmp_path_factory: Any) -> tuple[Path, dict[str, Any]]:
    """A set of 4 shards with three extra shards of 5, for 3 images of class 1 and 8 of class 3."""
    root = tmp_path_factory.mktemp("extras") / "runs"
    make_set(config, Store.open(str(root)))
    return root, generate_extras(config, Store.open(str(root)), ((wnids[1], 3), (wnids[3], 8)))


@pytest.fixture
def store(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Store:
    return Store.open(str(shutil.copytree(made[0], tmp_path / "runs")))


def test_only_whole_batches_of_the_asked_classes_are_made(
    made: tuple[Path, dict[str, Any]], store: Store, wnids: list[str]
) -> None:
    said = made[1]
    assert (said["rows"], said["ok"], said["images_made"], said["shards"]) == (15, 15, 15, 3)
    assert said["per_class"] == {wnids[1]: 3, wnids[3]: 8}
    assert published_extras(store, said["images_dir"]) == set(SHARDS)
    assert published_shards(store, said["images_dir"]) == {0, 1, 2, 3}


def test_a_second_call_makes_what_is_missing_and_the_same_images(
    made: tuple[Path, dict[str, Any]], store: Store, config: RunConfig, wnids: list[str]
) -> None:
    images_dir = made[1]["images_dir"]
    lost = read_summary(store, images_dir, SHARDS[1]).rows_sha256
    store.delete(shard_path(images_dir, SHARDS[1]))
    again = generate_extras(config, store, ((wnids[1], 3), (wnids[3], 8)))
    assert (again["images_made"], again["set_sha256"]) == (5, made[1]["set_sha256"])
    assert read_summary(store, images_dir, SHARDS[1]).rows_sha256 == lost
    assert generate_extras(config, store, ((wnids[1], 3),))["images_made"] == 0
    manifest = extra_manifest(store, images_dir)
    assert manifest is not None and manifest["per_class"] == again["per_class"]  # a smaller request took nothing away


def test_growing_either_part_only_adds_files(
    made: tuple[Path, dict[str, Any]], store: Store, config: RunConfig, wnids: list[str]
) -> None:
    folder = Path(store.uri(made[1]["images_dir"]))
    before = tree(folder / "shards", folder / "extra")
    maker = NullMakers(3_000)
    grown = generate_extras(config, store, ((wnids[3], 11), (wnids[9], 1)), make_maker=maker)
    assert (grown["images_made"], grown["per_class"][wnids[1]]) == (10, 3)
    larger = generate(config.model_copy(update={"images_per_class": 5}), store, make_maker=maker)
    assert (larger["images_made"], larger["rows"]) == (10, 50)
    after = tree(folder / "shards", folder / "extra")
    assert {path: after[path] for path in before if path.suffix == ".parquet"} == {
        path: data for path, data in before.items() if path.suffix == ".parquet"
    }
    assert len(after) == len(before) + 3


def test_the_uniform_manifest_knows_nothing_of_extra_images(
    made: tuple[Path, dict[str, Any]], store: Store, config: RunConfig
) -> None:
    path = Path(store.uri(made[1]["images_dir"])) / "manifest.json"
    before = path.read_bytes()
    path.unlink()
    generate(config, store)
    assert path.read_bytes() == before


def test_without_a_finished_set_nothing_is_made(config: RunConfig, tmp_root: str, wnids: list[str]) -> None:
    with pytest.raises(InputError, match="extra images lie beside a finished set; run `python -m jobs.generate`"):
        generate_extras(config, Store.open(tmp_root), ((wnids[0], 5),))
    assert not Path(tmp_root).exists()


def test_another_batch_size_is_refused(store: Store, tiny_model: Path, wnids: list[str]) -> None:
    other = tiny_config(tiny_model, {"generate.batch_size": 4})
    with pytest.raises(InputError, match="was begun with batch_size 5, the config says 4"):
        generate_extras(other, store, ((wnids[0], 5),))
