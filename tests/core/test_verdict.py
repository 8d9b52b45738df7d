import copy
import json

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.metrics import ScoreSums
from pipeline.core.verdict import ScoredModel, check_comparable, verdict


def model(group: str, seed: int, num_right: int) -> ScoredModel:
    """A model of 3 classes, right on the first `num_right` of 30 images."""
    labels = torch.arange(30) % 3
    taken = torch.where(torch.arange(30) < num_right, labels, (labels + 1) % 3)
    sums = ScoreSums(3, 15)
    sums.add(torch.nn.functional.one_hot(taken, 3).float(), labels)
    return ScoredModel(f"{group}-{seed}", group, seed, 60, sums.result())


def test_twins_with_two_seeds():
    found = verdict([model("real", 0, 24), model("synthetic", 0, 18), model("synthetic", 1, 21)], 3)
    synthetic, real = found["groups"]["synthetic"], found["groups"]["real"]
    assert list(found["groups"]) == ["synthetic", "real"]
    assert synthetic["top1_mean"] == pytest.approx(0.65)
    assert synthetic["top1_std"] == pytest.approx(0.05 * 2**0.5)
    assert (real["top1_mean"], real["top1_std"]) == (0.8, None)
    assert found["gap"]["top1"] == pytest.approx(0.15)
    assert found["top_k"] == 3 and synthetic["training_images"] == 60
    assert [m["top1_correct"] for m in synthetic["models"]] == [18, 21]
    assert synthetic["per_class_mean"] == pytest.approx([0.65, 0.65, 0.65])
    assert json.loads(json.dumps(found)) == found


def test_one_twin_alone_has_no_gap():
    assert verdict([model("synthetic", 0, 3)], 3)["gap"] is None


IDENTITY = {"data": {"image_set": "a"}, "images_per_class": 2, "classes": "c", "train": {"seed": 0, "epochs": 5}}


def changed(**changes) -> dict:
    identity = copy.deepcopy(IDENTITY)
    identity["train"] |= changes.pop("train", {})
    return {**identity, **changes}


def test_seeds_and_a_real_twin_are_comparable():
    check_comparable({"a": IDENTITY, "b": changed(train={"seed": 1}), "c": changed(data={"real": "fashion_mnist"})})


def test_a_filtered_model_and_the_real_twin_that_knows_no_filter_are_comparable_in_either_order():
    filtered, twin = changed(train={"filters": {"min_pixel_std": 5}}), changed(data={"real": "fashion_mnist"})
    check_comparable({"a": filtered, "b": twin})
    check_comparable({"a": twin, "b": filtered})


def test_a_mixed_model_is_comparable_with_its_twins_and_not_with_one_that_mixes_otherwise():
    both = {"image_set": "aa", "real": "fashion_mnist"}
    mixed, otherwise = (changed(data=both, train={"real_share": share}) for share in (0.5, 0.25))
    check_comparable({"a": mixed, "b": changed(data={"real": "fashion_mnist"}), "c": changed()})
    with pytest.raises(InputError, match="more than seed and data"):
        check_comparable({"a": mixed, "b": otherwise})


LONGER = changed(images_per_class=20, train={"epochs": 9})
REAL = changed(data={"real": "imagenet"})


def test_a_larger_generated_set_may_be_trained_for_another_length_than_the_real_one():
    check_comparable({"a": LONGER, "b": changed(images_per_class=20, train={"epochs": 9, "seed": 1}), "c": REAL})


@pytest.mark.parametrize(
    "others",
    [
        [LONGER],  # both of generated images
        [REAL, changed(data={"real": "imagenet"}, images_per_class=20)],  # two sizes of real ones
        [changed(data={"real": "imagenet"}, train={"epochs": 6})],  # a longer training of as many
    ],
    ids=["one kind", "second kind", "length alone"],
)
def test_sizes_and_lengths_do_not_differ_otherwise(others: list[dict]):
    with pytest.raises(InputError, match="more than seed and data"):
        check_comparable({str(number): identity for number, identity in enumerate([IDENTITY, *others])})


def test_real_models_beside_a_larger_set_are_alike_among_themselves():
    longer_real = changed(data={"real": "imagenet"}, train={"epochs": 6})
    with pytest.raises(InputError, match="models c and d differ"):
        check_comparable({"a": LONGER, "c": REAL, "d": longer_real})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(train={"epochs": 6}), "more than seed and data"),
        (changed(train={"filters": {"min_pixel_std": 5}}), "more than seed and data"),
        (changed(images_per_class=3), "more than seed and data"),
        (changed(data={"image_set": "b"}), "different image sets"),
    ],
)
def test_models_that_differ_in_more_are_refused(other: dict, words: str):
    with pytest.raises(InputError, match=f"one and two .*{words}"):
        check_comparable({"one": IDENTITY, "two": other})
