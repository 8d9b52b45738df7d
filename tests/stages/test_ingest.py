"""Images for training through Ray Data: the same ones as from memory, shuffled anew in every epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import read_columns, shard_path
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_images import COLUMNS
from pipeline.stages.ingest import StreamBatches, decode_batch, decode_files, open_training_data
from tests.image_sets import small_config, write_extras, write_image_set


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, Recipe]:
    store = Store.open(str(tmp_path_factory.mktemp("ingest") / "runs"))
    config = small_config(images_per_class=9, shard_size=20, ingest="stream")
    return store, config, write_image_set(config, store)  # 90 rows wanted, 100 made


def rows(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> list[tuple[int, bytes]]:
    return [(int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)]


def test_an_epoch_streams_exactly_the_images_that_memory_holds_and_the_next_one_in_another_order(
    ray_cluster: None, image_set: tuple[Store, RunConfig, Recipe]
) -> None:
    store, config, recipe = image_set
    data = open_training_data(config, recipe, store)
    assert (data.num_images, data.shard_size, data.arrays) == (90, 20, None)
    in_memory = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "memory"})})
    arrays = open_training_data(in_memory, recipe, store).arrays
    assert arrays is not None
    batches = StreamBatches(data.stream(store, config).iterator(), 6, share=15, shard_size=20, seed=0)
    epochs = []
    for epoch in range(2):
        pairs = [(images.numpy(), labels.numpy()) for images, labels in batches.epoch(epoch)]
        assert [len(labels) for _, labels in pairs] == [15] * 6
        epochs.append([row for images, labels in pairs for row in rows(images, labels)])
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(rows(*arrays))
    assert epochs[0] != epochs[1]
    assert len({label for label, _ in epochs[0][:15]}) > 4  # a batch mixes the classes


EXTRA = [0, 3, 9, *[0] * 7]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, Recipe]:
    """A set with extra shards of 4, and a training on 6 of each class with 3 and 9 more of two."""
    store = Store.open(str(tmp_path_factory.mktemp("grown") / "runs"))
    config = small_config(images_per_class=6, shard_size=20, engine_batch=4, ingest="stream")
    recipe = write_image_set(config, store)
    write_extras(config, store, EXTRA)
    wanted = dict(zip(recipe.classes.wnids, EXTRA, strict=True))
    train = TrainConfig.model_validate({**config.train.model_dump(mode="json"), "extra_images": wanted})
    return store, config.model_copy(update={"train": train}), recipe


def test_extra_images_are_read_beside_the_prefix_from_memory_and_as_a_stream(
    ray_cluster: None, grown: tuple[Store, RunConfig, Recipe]
) -> None:
    store, config, recipe = grown
    data = open_training_data(config, recipe, store)
    in_memory = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "memory"})})
    held = open_training_data(in_memory, recipe, store)
    assert held.arrays is not None and data.num_images == held.num_images == 72 and data.source == held.source
    assert np.bincount(held.arrays[1]).tolist() == [6 + more for more in EXTRA]
    batches = StreamBatches(data.stream(store, config).iterator(), 6, share=12, shard_size=20, seed=0)
    streamed = [row for images, labels in batches.epoch(0) for row in rows(images.numpy(), labels.numpy())]
    assert sorted(streamed) == sorted(rows(*held.arrays))


def test_the_source_names_the_extra_images_and_leaves_the_uniform_part_its_name(
    grown: tuple[Store, RunConfig, Recipe],
) -> None:
    store, config, recipe = grown
    source = open_training_data(config, recipe, store).source
    plain = config.model_copy(update={"train": config.train.model_copy(update={"extra_images": ()})})
    without = open_training_data(plain, recipe, store)
    assert without.num_images == 60 and {**without.source, "extra": source["extra"]} == source
    assert (source["extra"]["images"], source["extra"]["shards"], len(source["extra"]["sha256"])) == (12, 4, 64)


def test_extra_images_that_are_not_made_are_an_input_error(grown: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = grown
    more = ((recipe.classes.wnids[2], 13),)
    larger = config.model_copy(update={"train": config.train.model_copy(update={"extra_images": more})})
    with pytest.raises(InputError, match="lacks 1 of the 4 shards for train.extra_images .*--per-class"):
        open_training_data(larger, recipe, store)


def test_a_row_that_cannot_be_decoded_names_its_own_shard(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, _, recipe = image_set
    tables = []
    for shard in range(2):  # two shards in one block
        path = shard_path(recipe.images_dir, shard)
        table = read_columns(store, path, COLUMNS)
        if shard == 1:
            broken = [{"bytes": b"no picture", "path": None}, *table["image"].to_pylist()[1:]]
            position = table.column_names.index("image")
            table = table.set_column(position, "image", pa.array(broken, table["image"].type))
        tables.append(table.append_column("path", pa.array([path] * len(table))))
    with pytest.raises(WorkError, match=r"shard-000001\.parquet is damaged .image \d+"):
        decode_batch(pa.concat_tables(tables), images_per_class=9, max_side=36)


def test_manifest_source_names_the_set_and_its_content(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = image_set
    source = open_training_data(config, recipe, store).source
    assert source["image_set"] == recipe.images_dir
    assert source["shards"] == 5
    assert len(source["set_sha256"]) == 64


def linked(folder: Path, root: Path) -> Path:
    """The same folders of classes, whose files are links to files that lie all in one folder."""
    (root / "files").mkdir()
    for file in folder.glob("*/*"):
        original = root / "files" / f"{file.parent.name}-{file.name}"
        original.write_bytes(file.read_bytes())
        (root / "classes" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (root / "classes" / file.parent.name / file.name).symlink_to(original)
    return root / "classes"


def test_an_epoch_streams_the_files_that_memory_holds_and_the_next_one_in_another_order(
    ray_cluster: None, noise_folder: Path, tmp_path: Path, tmp_root: str
) -> None:
    config = small_config(
        images_per_class=3, data="real", real_data=str(linked(noise_folder, tmp_path)), ingest="stream"
    )
    recipe, store = resolve_recipe(config), Store.open(tmp_root)
    data = open_training_data(config, recipe, store)
    assert (data.num_images, data.arrays, data.shards) == (30, None, None)
    in_memory = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "memory"})})
    held = open_training_data(in_memory, recipe, store)
    assert held.arrays is not None and held.source == data.source
    batches = StreamBatches(data.stream(store, config).iterator(), 2, share=15, shard_size=0, seed=0)
    epochs = []
    for epoch in range(2):
        pairs = [(images.numpy(), labels.numpy()) for images, labels in batches.epoch(epoch)]
        epochs.append([row for images, labels in pairs for row in rows(images, labels)])
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(rows(*held.arrays))
    assert epochs[0] != epochs[1]


def test_a_streamed_file_that_is_no_image_is_named() -> None:
    batch = {"path": ["real/n00000001/a.JPEG"], "bytes": [b"no image"]}
    with pytest.raises(InputError, match=r"real/n00000001/a\.JPEG' cannot be read"):
        decode_files(batch, {"n00000001": 0}, 36)


def test_mixed_data_are_both_sets_and_the_source_names_both(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = image_set
    settings = {"data": "mixed", "ingest": "memory", "real_share": 0.25}
    mixed = config.model_copy(update={"train": config.train.model_copy(update=settings)})
    data = open_training_data(mixed, recipe, store)
    assert data.arrays is not None and data.real_arrays is not None
    assert (data.num_images, len(data.real_arrays[1])) == (90, 90)
    assert data.source["real"] == "fashion_mnist" and data.source["image_set"] == recipe.images_dir


def test_mixed_images_of_two_sizes_are_refused(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = image_set
    settings = {"data": "mixed", "ingest": "memory", "input_size": 16, "max_batch_per_worker": None}
    mixed = config.model_copy(update={"train": config.train.model_copy(update=settings)})
    with pytest.raises(InputError, match=r"images of one size.*\(18, 18\).*\(32, 32\)"):
        open_training_data(mixed, recipe, store)
