from __future__ import annotations

import pytest

from pipeline.core.errors import InputError
from pipeline.core.shard_range import shard_range


def test_a_part_is_named_as_pythons_slices_are() -> None:
    cases = {None: range(10), "0:10": range(10), "2:5": range(2, 5), ":5": range(5), "5:": range(5, 10), ":": range(10)}
    assert {text: shard_range(text, 10) for text in cases} == cases


@pytest.mark.parametrize("text", ["", "3", "5:5", "6:5", "0:11", "10:", "-1:3", "a:b", "1:2:3", "1.0:2", "१:२"])
def test_what_names_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="the set's 10 shards; give FIRST:STOP"):
        shard_range(text, 10)
