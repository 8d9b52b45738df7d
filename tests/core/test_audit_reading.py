from pathlib import Path

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.audit_reading import first_pictures, read_set_columns, real_columns, rows_of
from pipeline.core.config import RunConfig
from pipeline.core.errors import WorkError
from pipeline.core.identity import image_id
from pipeline.core.image_set import shard_path
from pipeline.core.images import perceptual_hash
from pipeline.core.recipe import Recipe
from pipeline.core.schema import IMAGE_SCHEMA
from pipeline.core.training_images import real_images
from tests.image_sets import small_config, write_image_set


def spoil(number: int, row: dict) -> dict:
    """The first row failed, the second is blank."""
    if number == 0:
        none = dict.fromkeys(("image", "phash", "sha256", "width", "height", "pixel_std"))
        return {**row, **none, "status": "failed", "reason": "no"}
    return {**row, "status": "blank"} if number == 1 else row


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Store, Recipe]:
    """Five images of each of ten classes in shards of 20: the last shard holds more."""
    config, store = small_config(5, 20), Store.open(str(tmp_path_factory.mktemp("root")))
    return config, store, write_image_set(config, store, spoil)


def paths(recipe: Recipe) -> list[str]:
    return [shard_path(recipe.images_dir, number) for number in range(3)]


def test_columns_are_those_of_the_exact_prefix(made):
    _, store, recipe = made
    found = read_set_columns(store, paths(recipe), 5)
    assert len(found.labels) == 50 and np.bincount(found.labels).tolist() == [5] * 10
    assert sorted(zip(found.labels.tolist(), found.indices.tolist(), strict=True)) == [
        (label, index) for label in range(10) for index in range(5)
    ]
    assert [found.has_status(name)[:3].tolist() for name in ("failed", "blank", "ok")] == np.eye(3).tolist()
    assert found.has_hash.tolist() == [False] + [True] * 49
    assert sum(values.nbytes for values in vars(found).values()) == 26 * 50  # what the docstring says of a row
    wanted = [image_id(label, index) for label in range(10) for index in range(5)]
    rows = {row["image_id"]: row for _, row in rows_of(store, recipe, wanted, 20)}
    for number in range(1, 50):
        row = rows[image_id(int(found.labels[number]), int(found.indices[number]))]
        assert f"{found.hashes[number]:016x}" == row["phash"]


def test_rows_of_chosen_images_are_whole_with_their_shard(made):
    _, store, recipe = made
    wanted = {image_id(label, index) for label in (3, 7) for index in (0, 3)}
    found = list(rows_of(store, recipe, sorted(wanted), 20))
    assert {row["image_id"] for _, row in found} == wanted and set(found[0][1]) == set(IMAGE_SCHEMA.names)
    assert [shard for shard, _ in found] == [*paths(recipe)[:1] * 2, *paths(recipe)[1:2] * 2]


def test_pictures_are_the_good_rows_of_the_first_images(made):
    _, store, recipe = made
    first, last = (list(first_pictures(store, paths(recipe)[n], 5)) for n in (0, 2))
    assert len(first) == 18 and {index for _, index, _ in first} == {0, 1}
    assert len(last) == 10 and first[0][2].mode == "RGB" and first[0][2].size == (32, 32)


def test_a_damaged_shard_is_named(made, tmp_path: Path):
    _, _, recipe = made
    store = Store.open(str(tmp_path))
    store.write_bytes(paths(recipe)[0], b"no parquet")
    with pytest.raises(WorkError, match=r"shard-000000\.parquet is damaged"):
        read_set_columns(store, paths(recipe)[:1], 5)


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ({"phash": "zz"}, "phash 'zz' of image 0"),
        ({"phash": "f" * 17}, "phash 'f+' of image 0"),
        ({"status": "lost"}, "status 'lost' of image 0"),
    ],
)
def test_a_row_that_says_what_none_may_is_damage(tmp_path: Path, spoilt: dict, said: str):
    config, store = small_config(2, 20), Store.open(str(tmp_path))
    recipe = write_image_set(config, store, lambda _, row: {**row, **spoilt} if row["image_id"] == 0 else row)
    with pytest.raises(WorkError, match=rf"shard-000000\.parquet is damaged \({said}"):
        read_set_columns(store, paths(recipe)[:1], 2)


def test_real_images_are_those_that_are_compared_and_files_are_read_one_by_one(noise_folder: Path):
    config = small_config(3, data="real", real_data=str(noise_folder))
    few = config.model_copy(update={"audit": config.audit.model_copy(update={"pairs_per_class": 2})})
    whole, part = real_columns(config), real_columns(few)
    assert (len(whole.labels), len(part.labels)) == (30, 20)
    assert np.array_equal(part.hashes, whole.hashes[:20]) and len(set(whole.hashes.tolist())) == 30
    images, labels = real_images(config)
    assert whole.hashes[7] == int(perceptual_hash(images[7]), 16) and np.array_equal(whole.labels, labels)
