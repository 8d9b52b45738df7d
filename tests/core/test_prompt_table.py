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
from pipeline.core.identity import FIRST_EXTRA, choose, class_permutation, image_id, noise_seed
from pipeline.core.prompt_table import PromptRows
from pipeline.core.prompts import Drawn, render
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import PROMPT_SCHEMA


def recipe(template: Any = "c, h_c inside b", **changes: Any) -> Recipe:
    return resolve_recipe(RunConfig.model_validate({"recipe": {"template": template, **changes}}))


def with_classes(base: Recipe, rows: list[dict[str, Any]]) -> Recipe:
    return replace(base, classes=ClassTable(rows, "test"), permutation=class_permutation([row["wnid"] for row in rows]))


@pytest.fixture(scope="module")
def fashion() -> Recipe:
    return recipe()


def test_extra_images_have_rows_of_their_own_whatever_stands_beside_them(fashion: Recipe) -> None:
    identifiers = [image_id(3, FIRST_EXTRA + number) for number in range(40)]
    rows = PromptRows(fashion).table_of(identifiers).to_pylist()
    assert [row["image_id"] for row in rows] == identifiers and {row["class_index"] for row in rows} == {3}
    assert [row["seed"] for row in rows] == [noise_seed(fashion.hash, identifier) for identifier in identifiers]
    assert len({row["background"] for row in rows}) > 20  # drawn image by image
    assert PromptRows(fashion).table_of(identifiers[7:8]).to_pylist() == rows[7:8]


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
        prompt = render(fashion.templates[0][0], class_row, Drawn(background=scene))
        assert (row["background"], row["prompt"]) == (scene, prompt)
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
    with pytest.raises(InputError, match="the class has no hypernym"):
        PromptRows(with_classes(recipe("c, h_c"), [row]))


def test_a_class_without_a_hypernym_has_none_drawn() -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "lemmas": ["a"], "hypernym_lemmas": [], "hypernym_wnids": []}
    template = "{{ c }}{% if h_c_random is defined %}, {{ h_c_random }}{% endif %}"
    assert PromptRows(with_classes(recipe(template), [row])).table(0, 2)["prompt"].to_pylist() == ["a", "a"]


@given(st.text(min_size=1), st.text(min_size=1).filter(str.strip), st.text(min_size=1))
def test_any_class_text_makes_a_row_with_that_text(name: str, lemma: str, definition: str) -> None:
    row = {**load_class_table("fashion_mnist").rows[0], "class_name": name, "lemmas": [lemma], "definition": definition}
    made = PromptRows(with_classes(recipe("c, d_c"), [row])).table(0, 1).to_pylist()[0]
    assert (made["class_name"], made["prompt"]) == (name, f"{lemma}, {definition}")


MIXTURE = [{"template": "c", "weight": 1}, {"template": "c, h_c inside b", "weight": 3}]


def test_a_mixture_draws_its_templates_by_weight_and_scenes_only_where_they_are_used() -> None:
    rows = PromptRows(recipe(MIXTURE)).table(0, 2000).to_pylist()
    plain = [row for row in rows if row["template"] == "{{ c }}"]
    assert 430 < len(plain) < 570  # a quarter, within 3.6 standard deviations
    assert {row["background"] for row in plain} == {None}
    assert all(row["background"] in row["prompt"] for row in rows if row["template"] != "{{ c }}")
    assert len({row["class_index"] for row in plain}) == 10


def test_words_and_styles_are_drawn_per_image_and_stay_what_they_are() -> None:
    mixed = recipe("a {{ style }} of a {{ c_random }}, {{ h_c_random }}", styles=["photo", "sketch"])
    rows = PromptRows(mixed).table(0, 400).to_pylist()
    bags = [row for row in rows if row["class_name"] == "Bag"]
    assert {row["style"] for row in bags} == {"photo", "sketch"}
    lemmas = mixed.classes.rows[bags[0]["class_index"]]["lemmas"]
    assert {row["prompt"].partition(" of a ")[2].partition(",")[0] for row in bags} == set(lemmas)
    assert PromptRows(mixed).table(100, 120).to_pylist() == rows[100:120]


@pytest.mark.parametrize(
    ("guidance", "least", "most", "distinct"), [(3, 3, 3, 1), ([1, 2, 4], 1, 4, 3), ({"low": 1, "high": 5}, 1, 5, 400)]
)
def test_guidance_is_a_number_one_of_a_list_or_within_a_range(guidance: Any, least: float, most: float, distinct: int):
    drawn = PromptRows(recipe("c", guidance_scale=guidance)).table(0, 400)["guidance_scale"].to_pylist()
    assert len(set(drawn)) == distinct
    assert least <= min(drawn) <= least + 0.1 and most - 0.1 <= max(drawn) <= most
