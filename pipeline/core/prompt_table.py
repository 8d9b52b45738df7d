"""The rows of a prompt table: what each image of a set will show, and from which seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.core.choices import draw_guidance, draw_template
from pipeline.core.clip_tokens import CONTEXT_LENGTH, clip_token_counts
from pipeline.core.identity import choose, noise_seed, row_image_id, split_image_id
from pipeline.core.prompts import Drawn, render, template_uses
from pipeline.core.recipe import Recipe
from pipeline.core.schema import PROMPT_SCHEMA


class _Key(NamedTuple):
    """All that decides the text of a prompt; 0 where its template uses none of it."""

    class_index: int
    template: int
    scene: int = 0
    style: int = 0
    lemma: int = 0
    hypernym: int = 0


class PromptRows:
    """Makes the rows of a recipe's prompt table, any range of them, always the same.

    A prompt is rendered and its tokens counted once per class and draw, so memory is bounded by their number (365,000
    for ImageNet-1K inside Places365, about 0.1 GB) and does not grow with the number of images.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Raises `InputError` when a template fails on one of the recipe's classes."""
        self._recipe = recipe
        self._prompts: dict[_Key, tuple[str, int]] = {}
        self._weights = [weight for _, weight in recipe.templates]
        names = ("b", "style", "c_random", "h_c_random")
        self._uses = [{name for name in names if template_uses(source, name)} for source, _ in recipe.templates]
        for class_index in range(len(recipe.classes)):
            for template in range(len(recipe.templates)):
                self._render(_Key(class_index, template))

    def table(self, start: int, stop: int) -> pa.Table:
        """Rows start (inclusive) to stop (exclusive) as a table of `PROMPT_SCHEMA`."""
        return self.table_of([row_image_id(row, self._recipe.permutation) for row in range(start, stop)])

    def table_of(self, image_ids: Sequence[int]) -> pa.Table:
        """The rows of any images, in the given order, as a table of `PROMPT_SCHEMA`."""
        recipe = self._recipe
        keys = [self._key(identifier) for identifier in image_ids]
        self._prepare(keys)
        prompts, counts = zip(*(self._prompts[key] for key in keys), strict=True)
        token_count = np.array(counts, dtype=np.int32)
        classes = [recipe.classes.rows[key.class_index] for key in keys]
        drawn = [self._drawn(key) for key in keys]
        columns = {
            "image_id": image_ids,
            "class_index": [key.class_index for key in keys],
            "class_name": [row["class_name"] for row in classes],
            "wnid": [row["wnid"] for row in classes],
            "prompt": prompts,
            "template": [recipe.templates[key.template][0] for key in keys],
            "background": [choice.background for choice in drawn],
            "style": [choice.style for choice in drawn],
            "guidance_scale": [draw_guidance(recipe.guidance, recipe.hash, identifier) for identifier in image_ids],
            "seed": [noise_seed(recipe.hash, identifier) for identifier in image_ids],
            "token_count": token_count,
            "truncated": token_count > CONTEXT_LENGTH,
        }
        return pa.table(columns, schema=PROMPT_SCHEMA)

    def _key(self, identifier: int) -> _Key:
        recipe = self._recipe
        class_index = split_image_id(identifier)[0]
        row = recipe.classes.rows[class_index]
        template = draw_template(self._weights, recipe.hash, identifier)

        def draw(variable: str, purpose: str, number: int) -> int:
            is_drawn = variable in self._uses[template] and number > 0  # a class may have no hypernym
            return choose(recipe.hash, identifier, purpose, number) if is_drawn else 0

        return _Key(
            class_index,
            template,
            scene=draw("b", "background", len(recipe.backgrounds)),
            style=draw("style", "style", len(recipe.styles)),
            lemma=draw("c_random", "lemma", len(row["lemmas"])),
            hypernym=draw("h_c_random", "hypernym", len(row["hypernym_lemmas"])),
        )

    def _drawn(self, key: _Key) -> Drawn:
        uses = self._uses[key.template]
        return Drawn(
            lemma=key.lemma,
            hypernym=key.hypernym,
            background=self._recipe.backgrounds[key.scene] if "b" in uses else None,
            style=self._recipe.styles[key.style] if "style" in uses else None,
        )

    def _render(self, key: _Key) -> str:
        source, _ = self._recipe.templates[key.template]
        return render(source, self._recipe.classes.rows[key.class_index], self._drawn(key))

    def _prepare(self, keys: list[_Key]) -> None:
        """Render and count the draws that are new."""
        new = [key for key in dict.fromkeys(keys) if key not in self._prompts]
        prompts = [self._render(key) for key in new]
        counts = clip_token_counts(prompts)
        self._prompts.update(zip(new, zip(prompts, counts, strict=True), strict=True))
