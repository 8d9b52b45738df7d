"""Words that a generator has never read: what it draws for them means nothing, and nobody else would say so.

A model of `jobs.train_generator`, as the embedded one is, knows the words of its captions and no others, and its
tokenizer writes any text: the prompt `multiple coat` gives trousers. A model from elsewhere does not say what it read.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core.captions import Captions
from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.errors import InputError
from pipeline.core.generator_config import TRAINING, GeneratorConfig
from pipeline.core.identity import class_permutation
from pipeline.core.model_source import EMBEDDED
from pipeline.core.prompt_table import PromptRows
from pipeline.core.prompts import Drawn, render
from pipeline.core.recipe import Recipe

NUM_SHOWN = 5
_ROWS = 1000
_ROWS_PER_CLASS = 4
logger = logging.getLogger(__name__)


def unread_words(config: RecipeConfig, recipe: Recipe) -> list[str]:
    """Words of the recipe's first prompts and its negative prompt that are in no caption of the generator.

    Args:
        config: that the recipe was resolved from.
        recipe: its first 1,000 prompts, or 4 for each class when that is more, stand for all; classes whose prompt
            cannot be made have none.

    Returns:
        Lower case, in the order in which prompts have them; empty for a model that does not say what it has read.
    """
    captions = _captions(config.model)
    if captions is None:
        return []
    read = {word for text in captions.texts() for word in _words(text)}
    prompts = [*_first_prompts(_without_failing_classes(recipe)), config.negative_prompt]
    return list(dict.fromkeys(word for text in prompts for word in _words(text) if word not in read))


def tell_unread(config: RecipeConfig, recipe: Recipe) -> None:
    """Log `unread_words`, when there are any."""
    if words := unread_words(config, recipe):
        logger.warning(
            "the generator %r has never read %s: what it draws for such prompts means nothing; its captions had other "
            "words (docs/generator.md)",
            config.model.id,
            some_words(words),
        )


def some_words(words: list[str]) -> str:
    """The first words, and how many there are."""
    shown = ", ".join(repr(word) for word in words[:NUM_SHOWN])
    return shown if len(words) <= NUM_SHOWN else f"{shown} and {len(words) - NUM_SHOWN} words more"


def _first_prompts(recipe: Recipe) -> list[str]:
    if not recipe.classes.rows:
        return []
    rows = max(_ROWS, _ROWS_PER_CLASS * len(recipe.classes))
    prompts: list[str] = PromptRows(recipe).table(0, rows)["prompt"].unique().to_pylist()
    return prompts


def _without_failing_classes(recipe: Recipe) -> Recipe:
    drawn = Drawn(background=next(iter(recipe.backgrounds), None), style=next(iter(recipe.styles), None))

    def is_made(row: dict[str, Any]) -> bool:
        try:
            return all(render(source, row, drawn) for source, _ in recipe.templates)
        except InputError:
            return False

    rows = [row for row in recipe.classes.rows if is_made(row)]
    permutation = class_permutation([row["wnid"] for row in rows])
    return replace(recipe, classes=replace(recipe.classes, rows=rows), permutation=permutation)


def _captions(model: ModelConfig) -> Captions | None:
    """What the model was trained on, if it says so and its class table is known here."""
    path = (EMBEDDED if model.id == "embedded" else Path(model.id)) / TRAINING
    try:
        return Captions.of(GeneratorConfig.model_validate(json.loads(path.read_text(encoding="utf-8"))["config"]))
    except (OSError, KeyError, TypeError, ValueError):  # none, or that of another program
        return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
