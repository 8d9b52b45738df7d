"""Images for training through Ray Data: the same ones as from memory, shuffled anew in every pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray.data

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.image_set import read_columns, shard_path
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.training_images import COLUMNS
from pipeline.stages.image_streams import StreamBatches, StreamPasses, decode_batch, decode_files
from pipeline.stages.ingest import open_training_data
from tests.image_sets import pixel_rows, small_config, write_image_set


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, Recipe]:
    store = Store.open(str(tmp_path_factory.mktemp("streams") / "runs"))
    config = small_config(images_per_class=9, shard_size=20, ingest="stream")
    return store, config, write_image_set(config, store)  # 90 rows wanted, 100 made


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
        epochs.append([row for images, labels in pairs for row in pixel_rows(images, labels)])
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(pixel_rows(*arrays))
    assert epochs[0] != epochs[1]
    assert len({label for label, _ in epochs[0][:15]}) > 4  # a batch mixes the classes


def test_a_task_reads_and_decodes_one_whole_shard(
    ray_cluster: None, image_set: tuple[Store, RunConfig, Recipe]
) -> None:
    """Of shards cut into blocks Ray Data makes two kinds of tasks that share the CPUs."""
    store, config, recipe = image_set
    blocks = open_training_data(config, recipe, store).stream(store, config).iterator().iter_batches(batch_size=None)
    assert sorted(len(block["label"]) for block in blocks) == [10, 20, 20, 20, 20]


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
        epochs.append([row for images, labels in pairs for row in pixel_rows(images, labels)])
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(pixel_rows(*held.arrays))
    assert epochs[0] != epochs[1]


def test_a_streamed_file_that_is_no_image_is_named() -> None:
    batch = {"path": ["real/n00000001/a.JPEG"], "bytes": [b"no image"]}
    with pytest.raises(InputError, match=r"real/n00000001/a\.JPEG' cannot be read"):
        decode_files(batch, {"n00000001": 0}, 36)


def test_rows_behind_the_prefix_add_nothing(ray_cluster: None, tmp_root: str) -> None:
    """Half of the one shard lies behind the prefix."""
    store = Store.open(tmp_root)
    made = small_config(images_per_class=10, shard_size=100, ingest="stream")
    recipe = write_image_set(made, store)
    wanted = made.model_copy(update={"images_per_class": 5})
    data = open_training_data(wanted, recipe, store)
    batches = StreamBatches(data.stream(store, wanted).iterator(), 5, share=10, shard_size=100, seed=0)
    labels = [label for _, part in batches.epoch(0) for label in part.tolist()]
    assert sorted(labels) == sorted(list(range(10)) * 5)


def numbered(count: int) -> ray.data.Dataset:
    """Images of one pixel whose label is their number, in a new order in every pass."""
    numbers = np.arange(count)
    images = numbers.astype(np.uint8)[:, None, None, None].repeat(3, axis=3)
    return ray.data.from_numpy_refs([ray.put(images)]).map_batches(
        lambda batch: {"image": batch["data"], "label": batch["data"][:, 0, 0, 0].astype(np.int64)}
    )


def test_passes_follow_each_other_each_in_an_order_of_its_own(ray_cluster: None) -> None:
    passes = StreamPasses(numbered(10).iterator(), share=3, seed=0)
    first, second = ([label for _ in range(3) for label in passes.part(0)[1].tolist()] for _ in range(2))
    assert len(set(first)) == len(set(second)) == 9 and first != second  # the tenth fills no part


def test_a_pass_without_images_is_an_error_and_no_endless_search(ray_cluster: None) -> None:
    passes = StreamPasses(numbered(2).iterator(), share=3, seed=0)
    with pytest.raises(WorkError, match="gave none"):
        passes.part(0)
