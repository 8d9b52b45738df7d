from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.core.set_scores import set_verdict
from pipeline.core.shift import shift_rows, spider_values


def one_set(title: str, masked: bool, value: float) -> dict[str, Any]:
    names = ("top1_masked", "top1") if masked else ("top1", "top5")
    found = dict.fromkeys(names, value)
    models = [("synthetic", "s0", found), ("real", "r0", {name: share + 0.1 for name, share in found.items()})]
    return {"title": title, "images": 30, "classes": 2, **set_verdict(models)}


def metrics(**changes: Any) -> dict[str, Any]:
    """As they come back from metrics.json, keys sorted."""
    sets = {
        "zoo": one_set("zoo", False, 0.1),
        "imagenet_a": one_set("A", True, 0.2),
        "imagenet_r": one_set("R", True, 0.3),
        "imagenet_val": one_set("val", False, 0.4),
    }
    found = {"main": "imagenet_val", "groups": {"synthetic": {}, "real": {}}, "test_sets": sets, **changes}
    value: dict[str, Any] = json.loads(json.dumps(found, sort_keys=True))
    return value


def test_main_set_first_then_the_known_ones_and_the_headline_first_of_each() -> None:
    rows = shift_rows(metrics())
    assert [row.title for row in rows] == ["val", "val", "R", "R", "A", "A", "zoo", "zoo"]
    assert [row.metric for row in rows[:3]] == ["top-1", "top-5", "top-1 among the set's classes"]
    assert [row.is_headline for row in rows] == [True, False] * 4
    assert list(rows[0].values) == ["synthetic", "real"] and rows[2].values["synthetic"] == (0.3, None)
    assert rows[4].gap == pytest.approx(0.1)


def test_a_whole_main_set_alone_needs_no_table_but_a_masked_one_does() -> None:
    alone = {"imagenet_val": one_set("val", False, 0.4)}
    assert shift_rows(metrics(test_sets=alone)) == []
    assert len(shift_rows(metrics(test_sets={"imagenet_r": one_set("R", True, 0.4)}, main="imagenet_r"))) == 2
    assert shift_rows({"groups": {}}) == []  # a report of an older version


def test_axes_are_the_headlines_and_then_the_families() -> None:
    noise = {"noise": {"mean": 0.5}, "digital": {"mean": 0.6}, "corrupted": {"mean": 0.55}, "table": {}}
    both = {"synthetic": noise, "real": {**noise, "noise": {"mean": 0.7}}}
    axes, values = spider_values(metrics(corruptions={"groups": both}))
    assert axes == ["val", "R", "A", "zoo", "noise", "digital"]
    assert list(values) == ["synthetic", "real"]
    assert values["synthetic"] == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.5, 0.6])
    assert values["real"] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.7, 0.6])
