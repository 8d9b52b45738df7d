"""Rows of a prompt table: the same for the same recipe, whatever range they are asked for in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import choose, class_permutation, image_id, noise_seed
from pipeline.core.prompt_table import PromptRows
from pipeline.core.prompts import render
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import PROMPT_SCHEMA


def recipe(template: str = "c, h_c inside b", **changes: Any) -> Recipe:
    return resolve_recipe(RunConfig.model_validate({"recipe": {"template": template, **changes}}))


def with_classes(base: Recipe, rows: list[dict[str, Any]]) -> Recipe:
    return replace(base, classes=ClassTable(rows, "test"), permutation=class_permutation([row["wnid"] for row in rows]))


@pytest.fixture(scope="module")
def fashion() -> Recipe:
    return recipe()


def test_a_table_has_the_schema_and_order_of_the_set(fashion: Recipe) -> None:
    table = PromptRows(fashion).table(0, 25)
    assert table.schema == PROMPT_SCHEMA
    expected = [image_id(fashion.permutation[row % 10], row // 10) for row in range(25)]
    assert table["image_id"].to_pylist() == expected


def test_every_column_follows_from_the_image_id(fashion: Recipe) -> None:
    for row in PromptRows(fashion).table(0, 40).to_pylist():
        identifier, class_row = row["image_id"], fashion.classes.rows[row["class_index"]]
        scene = fashion.backgrounds[choose(fashion.hash, identifier, "background", 365)]
        assert row["class_index"] == identifier >> 32
        assert (row["class_name"], row["wnid"]) == (class_row["class_name"], class_row["wnid"])
        assert (row["background"], row["prompt"]) == (scene, render(fashion.template, class_row, scene))
        assert row["seed"] == noise_seed(fashion.hash, identifier)


@given(st.integers(0, 500), st.integers(1, 60), st.integers(1, 60))
def test_rows_do_not_depend_on_the_range_they_are_made_in(start: int, length: int, more: int) -> None:
    rows = PromptRows(recipe())
    whole = rows.table(start, start + length + more)
    assert PromptRows(recipe()).table(start, start + length).equals(whole.slice(0, length))
    assert rows.table(start + length, start + length + more).equals(whole.slice(length))


@pytest.mark.parametrize("template", ["c", "c, h_c", "c, d_c"])
def test_background_is_null_when_the_template_has_none(template: str) -> None:
    assert PromptRows(recipe(template)).table(0, 30)["background"].null_count == 30


def test_background_list_counts_only_when_it_is_used() -> None:
    from pipeline.core.small_tables import ASSETS

    path = str(ASSETS / "backgrounds" / "places365.parquet")
    assert recipe("c", backgrounds="no such table").hash == recipe("c", backgrounds=path).hash
    assert recipe("c, h_c inside b", backgrounds=path).hash == recipe("c, h_c inside b").hash
    assert recipe("c, h_c inside b").hash != recipe("{{ c }}, {{ h_c }} inside {{ b }}.").hash


def test_a_template_by_name_and_written_out_is_one_recipe() -> None:
    assert recipe("c, h_c").hash == recipe("{{ c }}, {{ h_c }}").hash


def test_another_seed_namespace_gives_other_seeds_and_scenes() -> None:
    first, second = (PromptRows(recipe(seed_namespace=word)).table(0, 100) for word in ("0", "1"))
    assert first["image_id"].equals(second["image_id"])
    assert not set(first["seed"].to_pylist()) & set(second["seed"].to_pylist())
    assert not first["background"].equals(second["background"])


@pytest.mark.parametrize(("words", "truncated"), [(75, False), (76, True)])
def test_a_prompt_over_77_tokens_is_marked(words: int, truncated: bool) -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "lemmas": [" ".join(["dog"] * words)]}
    table = PromptRows(with_classes(recipe("c"), [row])).table(0, 1)
    assert table["token_count"].to_pylist() == [words + 2]
    assert table["truncated"].to_pylist() == [truncated]


def test_no_prompt_of_imagenet_is_cut_by_the_definition_recipe() -> None:
    imagenet = with_classes(recipe("c, d_c"), load_class_table("imagenet1k").rows)
    table = PromptRows(imagenet).table(0, 1000)
    assert max(table["token_count"].to_pylist()) == 65
    assert not any(table["truncated"].to_pylist())


def test_a_class_that_cannot_be_prompted_fails_before_any_row() -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "hypernym_lemmas": [], "hypernym_wnids": []}
    with pytest.raises(InputError, match="'h_c' is undefined"):
        PromptRows(with_classes(recipe("c, h_c"), [row]))


@given(st.text(min_size=1), st.text(min_size=1).filter(str.strip), st.text(min_size=1))
def test_any_class_text_makes_a_row_with_that_text(name: str, lemma: str, definition: str) -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "class_name": name, "lemmas": [lemma], "definition": definition}
    made = PromptRows(with_classes(recipe("c, d_c"), [row])).table(0, 1).to_pylist()[0]
    assert (made["class_name"], made["prompt"]) == (name, f"{lemma}, {definition}")
