"""Words that a generator has never read, and who is told."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import RunConfig
from pipeline.core.generator_config import TRAINING
from pipeline.core.model_source import EMBEDDED
from pipeline.core.recipe import resolve_recipe
from pipeline.core.unread_words import some_words, tell_unread, unread_words


def config_of(**recipe: Any) -> RunConfig:
    return RunConfig.model_validate({"recipe": recipe})


def unread(config: RunConfig) -> list[str]:
    return unread_words(config.recipe, resolve_recipe(config))


@pytest.mark.parametrize("template", ["c", "c, h_c", "c, d_c", "c, h_c inside b"])
def test_the_embedded_generator_has_read_its_own_recipes(template: str) -> None:
    assert unread(config_of(template=template)) == []


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"template": "multiple c"}, ["multiple"]),
        ({"template": "{{ style }} of {{ c }}", "styles": ["Sketch"]}, ["sketch"]),
        ({"negative_prompt": "coat, blurry", "guidance_scale": 2}, ["blurry"]),
        ({"template": [{"template": "c", "weight": 99}, {"template": "{{ c }} on Mars"}]}, ["mars"]),
    ],
)
def test_words_are_found_wherever_a_prompt_has_them(recipe: dict[str, Any], words: list[str]) -> None:
    assert unread(config_of(**recipe)) == words


@pytest.mark.parametrize(("lacking", "words"), [(1, ["multiple"]), (10, [])])
def test_a_class_whose_prompt_cannot_be_made_has_no_words(lacking: int, words: list[str]) -> None:
    config = config_of(template="multiple {{ c }}, {{ h_c }}")
    recipe = resolve_recipe(config)
    none = {"hypernym_lemmas": [], "hypernym_wnids": []}
    rows = [{**row, **none} if row["class_index"] < lacking else row for row in recipe.classes.rows]
    assert unread_words(config.recipe, replace(recipe, classes=replace(recipe.classes, rows=rows))) == words


def test_words_of_other_classes_are_unread() -> None:
    config = RunConfig.model_validate({"classes": "imagenet100", "recipe": {"template": "c"}})
    assert {"robin", "lorikeet"} <= set(unread(config))


@pytest.mark.parametrize("record", [None, "{", "[]", "{}", '{"config": {"zz": 1}}', '{"config": {"classes": "zz"}}'])
def test_a_model_that_does_not_say_what_it_has_read_is_not_judged(
    record: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    if record is not None:
        (model / TRAINING).write_text(record)
    assert unread(config_of(model={"id": str(model)}, template="multiple c")) == []


def test_a_model_that_was_trained_by_the_user_is_judged(tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    shutil.copy(EMBEDDED / TRAINING, model)
    assert unread(config_of(model={"id": str(model)}, template="multiple c")) == ["multiple"]


@pytest.mark.parametrize(("template", "said"), [("c", 0), ("multiple c", 1)])
def test_only_unread_words_are_told(template: str, said: int, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(template=template)
    with caplog.at_level(logging.WARNING):
        tell_unread(config.recipe, resolve_recipe(config))
    starts = [message.startswith("the generator 'embedded' has never read 'multiple'") for message in caplog.messages]
    assert starts == [True] * said


def test_many_words_are_counted_and_written_so_that_a_terminal_stays_sane() -> None:
    assert some_words(["a", "b"]) == "'a', 'b'"
    assert some_words(["\x1b", *"bcdefg"]) == r"'\x1b', 'b', 'c', 'd', 'e' and 2 words more"
