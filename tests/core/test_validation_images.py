from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.datasets import as_rgb32, class_prefix, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import ValidationConfig
from pipeline.core.validation_images import class_suffix, load_validation, synthetic_validation
from tests.image_sets import small_config, write_image_set


def test_real_images_are_the_last_of_the_training_split_and_never_those_of_a_twin(tmp_path: Path) -> None:
    config = small_config()
    settings = ValidationConfig(images_per_class=7)
    images, labels = load_validation(config, settings, Store.open(str(tmp_path)), config)
    assert images.shape == (70, 32, 32, 3) and images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [7] * 10
    pictures, every = load_fashion_mnist(None, "train")
    assert np.array_equal(images[0], as_rgb32(pictures[class_suffix(every, 7)[:1]])[0])
    assert set(class_suffix(every, 7)).isdisjoint(class_prefix(every, 5993))


def test_synthetic_images_come_from_seeds_that_no_training_set_has(tmp_path: Path) -> None:
    config, store = small_config(), Store.open(str(tmp_path))
    settings = ValidationConfig(source="synthetic", images_per_class=3)
    made = synthetic_validation(config, settings)
    assert resolve_recipe(made).hash != resolve_recipe(config).hash
    write_image_set(made, store)
    images, labels = load_validation(config, settings, store, config)
    assert len(images) == 30 and np.bincount(labels).tolist() == [3] * 10


def test_own_classes_come_from_a_folder(tmp_path: Path, noise_folder: Path) -> None:
    config = small_config()
    settings = ValidationConfig(path=str(noise_folder), images_per_class=2)
    images, labels = load_validation(config, settings, Store.open(str(tmp_path)), config)
    assert images.shape == (20, 32, 32, 3) and np.bincount(labels).tolist() == [2] * 10
    with pytest.raises(InputError, match="fewer than"):
        load_validation(config, settings.model_copy(update={"images_per_class": 4}), Store.open(str(tmp_path)), config)


def test_images_that_are_trained_on_are_an_input_error(tmp_path: Path, noise_folder: Path) -> None:
    store, link = Store.open(str(tmp_path)), tmp_path / "link"
    link.symlink_to(noise_folder)
    settings = ValidationConfig(path=str(link), images_per_class=2)
    for count, fits in ((1, True), (2, False)):  # of 3 of each class
        config = small_config(images_per_class=count, data="real", real_data=str(noise_folder))
        if fits:
            load_validation(config, settings, store, config)
            continue
        with pytest.raises(InputError, match="trained on"):
            load_validation(config, settings, store, config)
    twin = small_config(images_per_class=5990, data="mixed")
    with pytest.raises(InputError, match="trained on"):
        load_validation(twin, ValidationConfig(images_per_class=11), store, twin)


@pytest.mark.parametrize(("classes", "count", "says"), [("imagenet100", 1, "no real images"), ("", 6000, "below 6000")])
def test_what_is_not_there_is_an_input_error(tmp_path: Path, classes: str, count: int, says: str) -> None:
    config = small_config()
    config = config.model_copy(update={"classes": classes or config.classes})
    with pytest.raises(InputError, match=says):
        load_validation(config, ValidationConfig(images_per_class=count), Store.open(str(tmp_path)), config)


def test_more_images_than_memory_may_hold_are_refused_before_one_is_read(tmp_path: Path, noise_folder: Path) -> None:
    config = small_config(max_memory_gib=20 * 32**2 * 3 / 2**30)
    fits = ValidationConfig(path=str(noise_folder), images_per_class=2)
    load_validation(config, fits, Store.open(str(tmp_path)), config)
    with pytest.raises(InputError, match="30 decoded validation images .*lower validation.images_per_class"):
        load_validation(config, fits.model_copy(update={"images_per_class": 3}), Store.open(str(tmp_path)), config)
