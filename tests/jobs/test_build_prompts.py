"""`python -m jobs.build_prompts` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli

JOB = "jobs.build_prompts"


def test_a_table_is_built_once_and_extended(here: Cli, tmp_root: str) -> None:
    arguments = ["--preset", "fashion", "--root", tmp_root, "--json"]
    first = here(JOB, *arguments, "--images-per-class", "20").check_ok()
    folder = Path(first.json["path"])
    assert folder == Path(tmp_root) / "prompts" / first.json["recipe_hash"][:16]
    assert (first.json["rows"], first.json["classes"], first.json["distinct_prompts"]) == (200, 10, 10)
    assert len(first.json["first_prompts"]) == 5
    assert "bag, handbag, pocketbook, purse, container" in first.stdout
    files = {path.name: path.read_bytes() for path in folder.iterdir()}

    again = here(JOB, *arguments, "--images-per-class", "20").check_ok()
    assert again.json == first.json
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files

    grown = here(JOB, *arguments, "--images-per-class", "40").check_ok()
    assert (grown.json["path"], grown.json["rows"]) == (first.json["path"], 400)
    part = "part-000000000000-000000000200.parquet"
    assert (folder / part).read_bytes() == files[part]
    assert json.loads((folder / "manifest.json").read_text())["parts"][1]["row_start"] == 200


def test_text_of_classes_stays_text(here: Cli, tmp_root: str) -> None:
    name = "{{ b }}/../x\n<b>\"'🦩"
    table = f"{tmp_root}/classes/odd.parquet"
    here("jobs.build_classes", "--name", "odd", "--class", f"{name}=bag.n.04", "--root", tmp_root).check_ok()
    arguments = ["--preset", "fashion", "--set", f"classes={table}", "--images-per-class", "2", "--root", tmp_root]
    arguments += ["--set", "tracking.enabled=false"]
    result = here(JOB, *arguments, "--json").check_ok()
    assert result.json["first_prompts"][0] == "bag, handbag, pocketbook, purse, container"
    assert sorted(path.name for path in Path(tmp_root).iterdir()) == ["classes", "prompts"]


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("recipe.template={{ name }}", ["unknown variable 'name'", "h_c"]),
        ("recipe.template=c, x", ["is unknown", "did you mean"]),
        ("classes=imagenet10", ["does not ship", "imagenet100"]),
        ("classes=no/such.parquet", ["does not exist"]),
    ],
)
def test_wrong_input_is_one_line(here: Cli, tmp_root: str, setting: str, parts: list[str]) -> None:
    here(JOB, "--preset", "fashion", "--set", setting, "--root", tmp_root).check_error(2, *parts)
    assert not Path(tmp_root).exists()
