import pytest

from pipeline.core.text_table import aligned, few_digits, markdown_head, markdown_link, markdown_row


def test_columns_stand_under_each_other() -> None:
    assert aligned([["a", "b", "c"], ["long", "10", "x"]]) == ["a      b  c", "long  10  x"]


def test_a_cell_ends_neither_its_column_nor_its_line_and_is_no_html() -> None:
    assert markdown_row(["a|b", "c\nd", "<img src=x>"]) == "| a\\|b | c d | &lt;img src=x> |"
    assert markdown_head(["a|b", "c"]) == ["| a\\|b | c |", "|---|---|"]
    assert markdown_link("a](x) [b", "../c.html") == "[a&#93;(x) &#91;b](../c.html)"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.011, "0.011"),
        (0.12, "0.12"),
        (2.0, "2"),
        (3.44, "3.4"),
        (9.96, "10"),
        (12.5, "12"),
        (1088.6, "1,089"),
    ],
)
def test_no_quantity_is_rounded_to_nothing(value: float, text: str) -> None:
    assert few_digits(value) == text
