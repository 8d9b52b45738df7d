from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.choices import (
    GuidanceRange,
    WeightedTemplate,
    as_plain,
    describe_guidance,
    describe_template,
    draw_guidance,
    draw_template,
    highest,
    parse_guidance,
    parse_template,
)

HUGE = [{"template": "c", "weight": 10**400}]
GUIDANCE = st.floats(0, 50)
ANY_GUIDANCE = st.one_of(
    GUIDANCE,
    st.lists(GUIDANCE, min_size=1, max_size=5),
    st.tuples(GUIDANCE, GUIDANCE).filter(lambda ends: ends[0] < ends[1]).map(lambda e: {"low": e[0], "high": e[1]}),
)


@given(ANY_GUIDANCE)
def test_guidance_survives_yaml_and_json(value: Any) -> None:
    parsed = parse_guidance(value)
    assert parse_guidance(as_plain(parsed)) == parsed


@given(ANY_GUIDANCE, st.integers(0, 2**62))
def test_guidance_is_never_drawn_above_the_highest(value: Any, identifier: int) -> None:
    parsed = parse_guidance(value)
    assert 0 <= draw_guidance(parsed, "ab", identifier) <= highest(parsed)


def test_a_mixture_survives_yaml_and_json() -> None:
    mixture = parse_template([{"template": "c"}, {"template": "c, h_c", "weight": 3}])
    assert mixture == (WeightedTemplate("c", 1), WeightedTemplate("c, h_c", 3))
    assert parse_template(as_plain(mixture)) == mixture


@pytest.mark.parametrize(
    "value",
    [
        -1,
        51,
        10**400,
        True,
        "much",
        [],
        [1, "x"],
        {"low": 1},
        {"low": 3, "high": 2},
        {"low": 1, "high": 2, "x": 3},
        None,
    ],
)
def test_a_wrong_guidance_says_what_it_may_be(value: Any) -> None:
    with pytest.raises(ValueError, match=r"must be (a number from 0 to 50|below)"):
        parse_guidance(value)


@pytest.mark.parametrize(
    "value", [3, None, [], [3], [{"weight": 1}], [{"template": "c", "weight": 0}], [{"x": "c"}], HUGE]
)
def test_a_wrong_template_says_what_it_may_be(value: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_template(value)


def test_templates_are_drawn_by_weight() -> None:
    drawn = [draw_template([1, 2, 1], "ab", identifier) for identifier in range(4000)]
    counts = [drawn.count(index) for index in range(3)]
    assert all(abs(count - expected) < 120 for count, expected in zip(counts, (1000, 2000, 1000), strict=True))


def test_they_are_described_in_a_line() -> None:
    mixture = (WeightedTemplate("c", 1), WeightedTemplate("c, h_c", 0.5))
    assert (describe_template("c"), describe_template(mixture)) == ("c", "c (1) | c, h_c (0.5)")
    described = [describe_guidance(value) for value in (2.0, (1.0, 7.5), GuidanceRange(1, 5))]
    assert described == ["2", "1 | 7.5", "1 to 5"]
