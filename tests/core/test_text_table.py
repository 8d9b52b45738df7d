from pipeline.core.text_table import aligned


def test_columns_stand_under_each_other() -> None:
    assert aligned([["a", "b", "c"], ["long", "10", "x"]]) == ["a      b  c", "long  10  x"]
