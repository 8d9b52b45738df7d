from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.test_set_opening import MAIN, open_test_sets
from pipeline.core.test_sets import known_sets

HUNDRED = load_class_table("imagenet100")


def make(root: Path, wnids: list[str], per_class: int = 1) -> str:
    for wnid in wnids:
        (root / wnid).mkdir(parents=True)
        for number in range(per_class):
            Image.new("RGB", (8, 8)).save(root / wnid / f"{number}.png")
    return str(root)


def settings(main: str, **sets: str) -> EvaluateConfig:
    return EvaluateConfig.model_validate({"test_set": main, "test_sets": sets})


def test_a_set_shows_what_it_shares_with_the_run(tmp_path: Path) -> None:
    renditions = list(known_sets()["imagenet_r"].wnids or ())
    where = make(tmp_path / "r", renditions)
    found, missing = open_test_sets(settings("imagenet_r", imagenet_r=where), HUNDRED, None)
    one = found["imagenet_r"]
    assert not missing and one.is_masked and len(one.overlap) == 19 == len(one.images)
    assert {HUNDRED.wnids[label] for label in one.images.labels} == set(renditions) & set(HUNDRED.wnids)
    assert one.images.left_out == "181 images of 181 classes that the model does not have"


def test_a_known_set_under_another_name_is_recognised(tmp_path: Path) -> None:
    where = make(tmp_path / "imagenet-r", list(known_sets()["imagenet_r"].wnids or ()))
    with pytest.raises(InputError, match=r"the classes of imagenet_r: .*evaluate\.test_sets\.imagenet_r=FOLDER"):
        open_test_sets(settings(where), HUNDRED, None)


def test_missing_sets_say_where_to_get_them_and_the_others_are_opened(tmp_path: Path) -> None:
    mine = make(tmp_path / "mine", HUNDRED.wnids)
    config = settings("imagenet_val", imagenet_sketch=str(tmp_path / "no"), mine=mine)
    found, missing = open_test_sets(config, HUNDRED, None)
    assert list(found) == ["mine"] and not found["mine"].is_masked
    assert "--set evaluate.test_sets.imagenet_val=FOLDER" in missing["imagenet_val"]
    assert "https://www.image-net.org/download.php" in missing["imagenet_val"]
    assert "evaluate.test_sets.imagenet_sketch" in missing["imagenet_sketch"] and "/no'" in missing["imagenet_sketch"]


def test_without_any_set_there_is_nothing_to_do(tmp_path: Path) -> None:
    config = settings(str(tmp_path / "a"), imagenet_a=str(tmp_path / "b"))
    with pytest.raises(InputError, match=r"/a' is no folder.*evaluate.test_set .*; .*/b'.*natural-adv-examples"):
        open_test_sets(config, HUNDRED, None)


def test_no_set_takes_the_name_of_the_main_one(tmp_path: Path) -> None:
    where = make(tmp_path / "a", HUNDRED.wnids)
    with pytest.raises(InputError, match="'test_set' is the name of the main set"):
        open_test_sets(settings(where, test_set=where), HUNDRED, None)


def test_a_path_as_main_set_comes_first(tmp_path: Path) -> None:
    main, other = make(tmp_path / "main", HUNDRED.wnids), make(tmp_path / "other", HUNDRED.wnids)
    found, _ = open_test_sets(settings(main, other=other), HUNDRED, None)
    assert list(found) == [MAIN, "other"] and found[MAIN].images.name == main
    found, _ = open_test_sets(settings("other", first=main, other=other), HUNDRED, None)
    assert list(found) == ["other", "first"]


def test_anomalies_need_the_images_they_are_told_apart_from(tmp_path: Path) -> None:
    outside = make(tmp_path / "o", ["n99999999", "n01443537"], 2)
    mine = make(tmp_path / "mine", HUNDRED.wnids)
    found, missing = open_test_sets(settings(mine, imagenet_o=outside), HUNDRED, None)
    assert list(found) == [MAIN] and "imagenet_val" in missing["imagenet_o"]
    found, missing = open_test_sets(settings("imagenet_val", imagenet_val=mine, imagenet_o=outside), HUNDRED, None)
    assert not missing and len(found["imagenet_o"].images) == 4  # whatever their folders are called
    assert len(found["imagenet_o"].overlap) == 18 and set(found["imagenet_o"].images.labels) == {-1}
    with pytest.raises(InputError, match="imagenet_val has no place"):
        open_test_sets(settings("imagenet_val", imagenet_o=outside), HUNDRED, None)


def test_a_set_of_other_classes_is_refused(tmp_path: Path) -> None:
    where = make(tmp_path / "a", ["n01443537"])
    adversarial = known_sets()["imagenet_a"].wnids or ()
    garments = [row for row in load_class_table("fashion_mnist").rows if row["wnid"] not in adversarial]
    with pytest.raises(InputError, match=f"shows none of the {len(garments)} classes"):
        open_test_sets(settings("imagenet_a", imagenet_a=where), ClassTable(garments, ""), None)
    with pytest.raises(InputError, match=r"lacks a sub-folder for n\d{8}, .* and \d+ more; .* the 15 classes"):
        open_test_sets(settings("imagenet_a", imagenet_a=where), HUNDRED, None)


def test_fashion_mnist_that_is_not_there_does_not_keep_the_others(tmp_path: Path) -> None:
    fashion = load_class_table("fashion_mnist")
    mine = make(tmp_path / "mine", fashion.wnids)
    found, missing = open_test_sets(settings("fashion_mnist", mine=mine), fashion, str(tmp_path / "nothing"))
    assert list(found) == ["mine"] and "no Fashion-MNIST in" in missing["fashion_mnist"]
