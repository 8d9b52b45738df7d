"""Which files of an ImageNet-like folder a real twin takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.model_identity import model_identity
from pipeline.core.real_folder import RealFolder, open_real_folder
from pipeline.core.recipe import resolve_recipe
from pipeline.core.training_images import check_memory, real_images
from tests.image_sets import small_config

CLASSES = load_class_table("fashion_mnist")


def fill(root: Path, counts: dict[int, int] | None = None, names: str = "{}.JPEG") -> Path:
    """Flat pictures 60 x 40 whose colour is the number of the file, `counts` (default 3) of each class."""
    for label, wnid in enumerate(CLASSES.wnids):
        (root / wnid).mkdir(parents=True)
        for number in range((counts or {}).get(label, 3)):
            picture = Image.new("RGB", (60, 40), (number * 20, label * 10, 7))
            picture.save(root / wnid / names.format(number), "PNG")
    return root


def opened(root: Path, images_per_class: int, fewest: int | None = None, most: int | None = None) -> RealFolder:
    settings = real_config(root, min_real_per_class=fewest, max_real_per_class=most).train
    return open_real_folder(settings, CLASSES, images_per_class)


def real_config(root: Path, images_per_class: int = 2, **train: Any) -> RunConfig:
    return small_config(images_per_class=images_per_class, data="real", real_data=str(root), **train)


def test_first_images_by_name_index_by_index_so_that_a_smaller_twin_is_a_prefix(tmp_path: Path) -> None:
    fill(tmp_path, names="{:02}.JPEG")
    (tmp_path / CLASSES.wnids[0] / "0.txt").write_text("no image")
    few, more = opened(tmp_path, 2), opened(tmp_path, 3)
    assert [path.parent.name for path in few.files[:10]] == CLASSES.wnids
    assert [path.name for path in few.files] == ["00.JPEG"] * 10 + ["01.JPEG"] * 10
    assert few.labels.tolist() == [*range(10), *range(10)]
    assert more.files[:20] == few.files and len(more) == 30


def test_torchvisions_train_beside_val_and_other_classes_are_found_and_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    (tmp_path / "val" / CLASSES.wnids[0]).mkdir(parents=True)
    (tmp_path / "train" / "n99999999").mkdir()
    assert len(opened(tmp_path, 1)) == 10


def test_missing_classes_and_those_with_too_few_images_are_told_in_one_error(tmp_path: Path) -> None:
    fill(tmp_path, {3: 1, 4: 2})
    for label in (0, 1):
        for path in (tmp_path / CLASSES.wnids[label]).iterdir():
            path.unlink()
        (tmp_path / CLASSES.wnids[label]).rmdir()
    with pytest.raises(InputError) as caught:
        opened(tmp_path, 3)
    said = str(caught.value)
    assert f"lacks 2 of 10 classes ({CLASSES.wnids[0]}, {CLASSES.wnids[1]})" in said
    assert f"fewer than 3 images of 2 classes ({CLASSES.wnids[3]}: 1, {CLASSES.wnids[4]}: 2)" in said


def test_fewer_images_of_a_class_are_an_error_unless_allowed(tmp_path: Path) -> None:
    fill(tmp_path, {3: 1})
    with pytest.raises(InputError, match=r"lower images_per_class .*train\.min_real_per_class=1"):
        opened(tmp_path, 3)
    found = opened(tmp_path, 3, fewest=1)
    assert len(found) == 28 and found.fewer == {CLASSES.wnids[3]: 1}
    assert len(opened(tmp_path, 1, fewest=2)) == 10  # asked for fewer than must be there


def test_more_images_of_a_class_are_taken_where_it_has_them_so_that_a_twin_is_the_whole_set(tmp_path: Path) -> None:
    fill(tmp_path, {3: 1, 4: 5, 5: 9})
    found = opened(tmp_path, 3, fewest=1, most=5)
    assert np.bincount(found.labels).tolist() == [3, 3, 3, 1, 5, 5, 3, 3, 3, 3]
    assert found.fewer == {CLASSES.wnids[3]: 1} and found.files[: len(opened(tmp_path, 1))] == opened(tmp_path, 1).files
    assert len(opened(tmp_path, 7, fewest=1, most=5)) == len(found)  # a twin of a larger set is the whole one, too
    with pytest.raises(InputError, match=r"train\.max_real_per_class 2 is below the 3 images that a class must have"):
        opened(tmp_path, 3, most=2)


def test_no_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.real_data .* is no folder"):
        opened(tmp_path / "nowhere", 1)


def test_images_of_any_shape_become_squares_of_their_centre(tmp_path: Path) -> None:
    fill(tmp_path)
    images, labels = real_images(real_config(tmp_path))
    assert images.shape == (20, 36, 36, 3)  # 8/7 of the input of 32
    assert labels.tolist() == [*range(10), *range(10)]
    assert (images[13] == (20, 30, 7)).all()
    stripes = np.zeros((36, 72, 3), np.uint8)
    stripes[:, 18:54] = 255  # the centre
    Image.fromarray(stripes).save(tmp_path / CLASSES.wnids[0] / "0.JPEG", "PNG")
    assert (real_images(real_config(tmp_path))[0][0] == 255).all()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / CLASSES.wnids[4] / "1.JPEG").write_bytes(b"no image")
    with pytest.raises(InputError, match=rf"{CLASSES.wnids[4]}/1\.JPEG' cannot be read .*; replace or remove it"):
        real_images(real_config(tmp_path))


def test_too_many_for_memory_names_the_stream() -> None:
    config = real_config(Path("folder"), max_memory_gib=0.001)
    with pytest.raises(InputError, match=r"train\.ingest=stream"):
        check_memory([(300, 36, 36)], config)


def test_a_model_is_named_by_the_images_and_not_by_where_they_lie(tmp_path: Path) -> None:
    recipe = resolve_recipe(small_config())

    def identity(root: Path, images_per_class: int = 2, **train: Any) -> str:
        return model_identity(real_config(root, images_per_class, **train), recipe)[1]

    first = identity(fill(tmp_path / "a"))
    assert identity(fill(tmp_path / "b")) == first
    assert identity(tmp_path / "a", min_real_per_class=1) == first
    assert identity(fill(tmp_path / "c", names="x{}.JPEG")) != first
    (tmp_path / "b" / CLASSES.wnids[0] / "2.JPEG").write_bytes(b"not among the first two")
    assert identity(fill(tmp_path / "d", {5: 9})) == first
    synthetic = small_config(real_data=str(tmp_path / "a"))
    assert model_identity(synthetic, recipe) == model_identity(small_config(), recipe)


def test_a_folder_keeps_the_fingerprint_that_finished_models_were_trained_under(tmp_path: Path) -> None:
    for label, wnid in enumerate(CLASSES.wnids):
        (tmp_path / wnid).mkdir()
        for number in range(2):
            (tmp_path / wnid / f"{number}.JPEG").write_bytes(b"x" * (100 + 10 * label + number))
    assert opened(tmp_path, 2).fingerprint == "8c528acdb8a214bed61e629b5ddb1950ced0a94028a97b3d4249fd009d9610bc"
