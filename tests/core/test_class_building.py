"""From a user's list of classes to a table."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from pipeline.core.class_building import build_class_table, read_class_list, resolve_entry
from pipeline.core.classes import check_rows
from pipeline.core.errors import InputError
from pipeline.core.wordnet import WordNet, open_wordnet


@pytest.fixture(scope="module")
def wordnet() -> WordNet:
    return open_wordnet()


@pytest.mark.parametrize(
    ("entry", "name", "synset"),
    [
        ("n02774152", "bag", "bag.n.04"),
        ("bag.n.04", "bag", "bag.n.04"),
        ("gym_shoe.n.01", "gym shoe", "gym_shoe.n.01"),
        ("tennis shoe", "tennis shoe", "gym_shoe.n.01"),
        ("bag=4", "bag", "bag.n.04"),
        ("bag = 4", "bag", "bag.n.04"),
        ("T-shirt/top=jersey.n.03", "T-shirt/top", "jersey.n.03"),
        ("a=b=n03595614", "a=b", "jersey.n.03"),
        ("{{ c }}\n<b>=n03595614", "{{ c }}\n<b>", "jersey.n.03"),
    ],
)
def test_an_entry_names_a_class(wordnet: WordNet, entry: str, name: str, synset: str) -> None:
    found_name, noun = resolve_entry(wordnet, entry)
    assert (found_name, noun.synset) == (name, synset)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("bag", "several senses"),
        ("bag=99", "has no sense 99"),
        ("bag=0", "has no sense 0"),
        ("bag=handbag", "no sense number"),
        ("bag=", "no sense number"),
        ("=4", "no name before"),
        ("sandall=1", "did you mean"),
        ("x=n00000000", "no noun"),
        ("x=bag.n.99", "9 noun sense"),
        ("\udcff=4", "not UTF-8"),
        ("n01440764 tench, Tinca tinca", "only n01440764, or NAME=n01440764"),
        ("n01440764\ttench", "only n01440764, or NAME=n01440764"),
        ("n01440764,tench", "only n01440764, or NAME=n01440764"),
    ],
)
def test_a_wrong_entry_is_an_error(wordnet: WordNet, entry: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resolve_entry(wordnet, entry)


def test_a_table_is_in_the_users_order(wordnet: WordNet) -> None:
    table = build_class_table(wordnet, ["sandal", "n02872752", "sneaker=1"], "my shoes")
    assert [(row["class_index"], row["class_name"], row["synset"]) for row in table.rows] == [
        (0, "sandal", "sandal.n.01"),
        (1, "boot", "boot.n.01"),
        (2, "sneaker", "gym_shoe.n.01"),
    ]
    check_rows(table.rows, "the table")


def test_every_problem_is_told_at_once(wordnet: WordNet) -> None:
    with pytest.raises(InputError) as caught:
        build_class_table(wordnet, ["sandal", "sandall", "bag", "sandal.n.01"], "test")
    message = str(caught.value)
    assert "'sandall' is not a noun" in message
    assert "'bag' has several senses" in message
    assert "'sandal.n.01' is n04133789 (sandal.n.01), as 'sandal' is" in message


def test_a_list_of_mistakes_ends_after_twenty(wordnet: WordNet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def count(word: str, *_: object, **__: object) -> list[str]:
        asked.append(word)  # each takes a third of a second
        return []

    monkeypatch.setattr(difflib, "get_close_matches", count)
    with pytest.raises(InputError, match=r"'word0x' is not a noun.*'word19x' is not a noun.*… and 180 entries more"):
        build_class_table(wordnet, ["sandal", *(f"word{number}x" for number in range(200))], "test")
    assert len(asked) == 20


def test_no_entries_is_an_error(wordnet: WordNet) -> None:
    with pytest.raises(InputError, match="no classes given"):
        build_class_table(wordnet, [], "test")


def test_a_list_leaves_out_blank_lines_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("\ufeff# my classes\r\n\r\n  bag=4  \r\nn03595614\n\n# end", encoding="utf-8")
    assert read_class_list(path) == ["bag=4", "n03595614"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00bag"])
def test_an_unreadable_list_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="--from"):
        read_class_list(path)


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_class_list(tmp_path)
