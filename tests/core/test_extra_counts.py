"""Tables of extra images per class: every form that is read, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.classes import load_class_table
from pipeline.core.errors import InputError
from pipeline.core.extra_counts import (
    MAX_EXTRA,
    as_mapping,
    counts_by_class,
    parse_extra_images,
    read_extra_images,
)

CLASSES = load_class_table("fashion_mnist")
FIRST, SECOND = CLASSES.wnids[:2]
NAME = CLASSES.names[1]


def write(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", f"wnid,class,images,more\n{FIRST},x,50,1\n{SECOND},y,0,2\n"),
        ("b.csv", f"class,images\n{FIRST},50\n"),
        ("a.json", f'{{"{FIRST}": 50}}'),
        ("a.yaml", f"{FIRST}: 50\n{NAME}: 0\n"),
    ],
)
def test_all_forms_say_the_same(name: str, text: str, tmp_path: Path) -> None:
    assert read_extra_images(write(tmp_path, name, text), CLASSES) == ((FIRST, 50),)


def test_a_class_may_be_named_by_its_name(tmp_path: Path) -> None:
    assert read_extra_images(write(tmp_path, "a.csv", f"class,images\n{NAME},7\n"), CLASSES) == ((SECOND, 7),)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "class,images\nn00000000,5\n", "line 2: 'n00000000' is no class of the run"),
        ("a.csv", f"class,images\n{FIRST},5\n{FIRST},6\n", "line 3: class .* stands twice"),
        ("a.csv", f"class,images\n{SECOND},5\n{NAME},6\n", "line 3: class .* stands twice"),
        ("a.csv", f"class,images\n{FIRST},-5\n", "between 0 and 1,000,000, not -5"),
        ("a.csv", f"class,images\n{FIRST},{MAX_EXTRA + 1}\n", "between 0 and 1,000,000"),
        ("a.csv", f"class,images\n{FIRST},many\n", "a whole one, not 'many'"),
        ("a.csv", f"class,images\n{FIRST},1.5\n", "a whole one, not '1.5'"),
        ("a.csv", f"class,images\n{FIRST}\n", "a whole one, not None"),
        ("a.csv", f"class,images\n{FIRST},0\n", "asks for no image of any class"),
        ("a.csv", f"class,count\n{FIRST},5\n", "has the columns 'class', 'count'; give the columns"),
        ("a.csv", "", "has the columns none"),
        ("a.csv", b"class,images\n\xff,5\n", "is no text"),
        ("a.csv", f"class,images\r{FIRST},5\r{SECOND},5\r", "a.csv' is no CSV at line 0 .*new-line character"),
        ("a.csv", f"class,images\n{'x' * 200_000},5\n", "a.csv' is no CSV at line 1 .*field larger than"),
        ("a.yaml", f"{FIRST}: 5\n{FIRST}: 6\n", "stands twice"),
        ("a.yaml", f"{FIRST}: true\n", "a whole one, not True"),
        ("a.json", "[1, 2]", "must hold `key: value` lines"),
        ("a.txt", "x", "must end in .csv, .json"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(name: str, text: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as error:
        read_extra_images(write(tmp_path, name, text), CLASSES)
    assert "\n" not in str(error.value) and name in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'.*none.csv' does not exist"):
        read_extra_images(str(tmp_path / "none.csv"), CLASSES)


def test_a_mapping_is_one_value_whatever_its_order_and_its_zeros() -> None:
    assert (
        parse_extra_images({"b": 2, "a": "1", "c": 0}) == parse_extra_images({"a": 1, "b": 2}) == (("a", 1), ("b", 2))
    )
    assert parse_extra_images(as_mapping((("a", 1),))) == (("a", 1),)


@pytest.mark.parametrize("value", [7, ["a"], {"a": -1}, {"a": None}])
def test_what_is_no_mapping_of_numbers_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="must be a mapping|a number of"):
        parse_extra_images(value)


def test_counts_lie_at_their_labels() -> None:
    assert counts_by_class(((SECOND, 7),), CLASSES).tolist() == [0, 7, *[0] * 8]
    assert counts_by_class((), CLASSES).tolist() == []


def test_a_foreign_wnid_of_a_config_is_an_input_error() -> None:
    with pytest.raises(InputError, match="train.extra_images: 'n00000000' is no class"):
        counts_by_class((("n00000000", 7),), CLASSES)
