"""`python -m jobs.build_classes` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.classes import load_class_table
from tests.conftest import Cli

JOB = "jobs.build_classes"


def test_a_list_becomes_a_table_that_a_config_takes(here: Cli, tmp_path: Path) -> None:
    list_file = tmp_path / "shoes.txt"
    list_file.write_text("# my shoes\nsandal\nBottine <b>=boot.n.01\n", encoding="utf-8")
    root = tmp_path / "runs"
    arguments = ["--name", "shoes", "--from", str(list_file), "--class", "n03472535", "--root", str(root), "--json"]
    result = here(JOB, *arguments, "--source", "the shop").check_ok()
    path = root / "classes" / "shoes.parquet"
    table = load_class_table(str(path))
    assert result.json == {"classes": 3, "path": str(path), "hash": table.hash, "written": True}
    assert [row["synset"] for row in table.rows] == ["sandal.n.01", "boot.n.01", "gym_shoe.n.01"]
    assert table.names == ["sandal", "Bottine <b>", "gym shoe"]
    assert table.source == "the shop; WordNet 3.0"
    before = path.read_bytes()
    here(JOB, *arguments, "--source", "the shop").check_ok()
    assert path.read_bytes() == before


def test_an_ambiguous_word_is_listed_and_nothing_is_written(here: Cli, tmp_root: str) -> None:
    result = here(JOB, "--name", "x", "--class", "bag", "--class", "sandall", "--root", tmp_root)
    result.check_error(
        2, "4 = bag.n.04 n02774152 (a container used for carrying money", "bag=1", "did you mean", "'sandal'"
    )
    assert not Path(tmp_root).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "x"], "no classes given"),
        (["--name", "../x", "--class", "sandal"], "cannot name a file"),
        (["--name", "x", "--from", "no/such/file"], "does not exist"),
        (["--class", "sandal"], "--name"),
        (["--name", "x", "--class", "sandal", "--source", "caf\udce9"], "'caf\\udce9' is not UTF-8 text"),
    ],
)
def test_wrong_input_is_one_line(here: Cli, tmp_root: str, arguments: list[str], message: str) -> None:
    here(JOB, *arguments, "--root", tmp_root).check_error(2, message)
    assert not Path(tmp_root).exists()


def test_other_classes_are_replaced_only_when_asked(here: Cli, tmp_root: str) -> None:
    here(JOB, "--name", "mine", "--class", "sandal", "--root", tmp_root).check_ok()
    other = ["--name", "mine", "--class", "boot=1", "--root", tmp_root]
    here(JOB, *other).check_error(2, "holds other classes", "--replace")
    here(JOB, *other, "--replace").check_ok()
    assert load_class_table(f"{tmp_root}/classes/mine.parquet").names == ["boot"]


def test_dry_run_writes_nothing(here: Cli, tmp_root: str) -> None:
    result = here(JOB, "--name", "mine", "--class", "sandal", "--root", tmp_root, "--dry-run", "--json").check_ok()
    assert result.json["written"] is False
    assert not Path(tmp_root).exists()
