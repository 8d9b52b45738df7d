from __future__ import annotations

import re

from pipeline.core.classes import load_class_table
from pipeline.core.test_sets import known_sets, spec_of


def test_every_set_has_its_classes_and_a_public_page() -> None:
    sizes = {name: len(spec.wnids or ()) for name, spec in known_sets().items()}
    subsets = {"imagenet_r", "imagenet_a", "imagenet_o"}
    assert sizes == {name: 200 if name in subsets else 1000 for name in known_sets()} and len(sizes) == 8
    thousand = load_class_table("imagenet1k").wnids
    for name, spec in known_sets().items():
        assert set(spec.wnids or ()) <= set(thousand) and spec.numbered_by == tuple(thousand)
        assert re.search(r"https://\S+$", spec.get) and "." not in name  # a dot would end the word in --set
    assert [name for name, spec in known_sets().items() if spec.metric == "anomaly"] == ["imagenet_o"]


def test_masks_of_the_thousand_and_of_the_hundred_classes() -> None:
    """Counts that the sets' makers give (200 of 1,000; R and A share some), and of the 100 classes of ImageNet-100."""
    thousand, hundred = load_class_table("imagenet1k"), load_class_table("imagenet100")
    masks = {name: known_sets()[name].labels(thousand) for name in ("imagenet_r", "imagenet_a", "imagenet_o")}
    assert all(len(mask) == 200 and mask == sorted(mask) for mask in masks.values())
    assert len(set(masks["imagenet_r"]) & set(masks["imagenet_a"])) == 86
    # The first and last of the published index lists, counted from 0.
    assert masks["imagenet_a"][:4] == [6, 11, 13, 15] and masks["imagenet_a"][-3:] == [986, 987, 988]
    overlap = {name: len(spec.labels(hundred)) for name, spec in known_sets().items()}
    assert (overlap["imagenet_r"], overlap["imagenet_a"], overlap["imagenet_val"]) == (19, 15, 100)


def test_any_other_name_is_a_set_of_the_runs_own_classes() -> None:
    spec = spec_of("mine")
    assert spec.metric == "accuracy" and spec.numbered_by is None
    assert spec.labels(load_class_table("fashion_mnist")) == list(range(10))
