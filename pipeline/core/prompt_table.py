"""The rows of a prompt table: what each image of a set will show, and from which seed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.core.clip_tokens import CONTEXT_LENGTH, clip_token_counts
from pipeline.core.identity import choose, noise_seed, row_image_id, split_image_id
from pipeline.core.prompts import render
from pipeline.core.recipe import Recipe
from pipeline.core.schema import PROMPT_SCHEMA


class PromptRows:
    """Makes the rows of a recipe's prompt table, any range of them, always the same.

    A prompt is rendered and its tokens counted once per class and scene, so memory is bounded by their number (365,000
    for ImageNet-1K inside Places365, about 0.1 GB) and does not grow with the number of images.
    """

    def __init__(self, recipe: Recipe) -> None:
        """Raises `InputError` when the template fails on one of the recipe's classes."""
        self._recipe = recipe
        self._prompts: dict[tuple[int, int], tuple[str, int]] = {}
        for row in recipe.classes.rows:
            render(recipe.template, row, self._scene_name(0))

    def table(self, start: int, stop: int) -> pa.Table:
        """Rows start (inclusive) to stop (exclusive) as a table of `PROMPT_SCHEMA`."""
        recipe = self._recipe
        image_ids = [row_image_id(row, recipe.permutation) for row in range(start, stop)]
        class_indices = [split_image_id(identifier)[0] for identifier in image_ids]
        scenes = self._scenes(image_ids)
        keys = list(zip(class_indices, scenes, strict=True))
        self._prepare(keys)
        prompts, counts = zip(*(self._prompts[key] for key in keys), strict=True)
        token_count = np.array(counts, dtype=np.int32)
        classes = [recipe.classes.rows[class_index] for class_index in class_indices]
        columns = {
            "image_id": image_ids,
            "class_index": class_indices,
            "class_name": [row["class_name"] for row in classes],
            "wnid": [row["wnid"] for row in classes],
            "prompt": prompts,
            "background": [self._scene_name(scene) for scene in scenes],
            "seed": [noise_seed(recipe.hash, identifier) for identifier in image_ids],
            "token_count": token_count,
            "truncated": token_count > CONTEXT_LENGTH,
        }
        return pa.table(columns, schema=PROMPT_SCHEMA)

    def _scenes(self, image_ids: list[int]) -> list[int]:
        """Index of each image's background scene; 0 for all when the recipe has none."""
        num_scenes = len(self._recipe.backgrounds)
        if num_scenes == 0:
            return [0] * len(image_ids)
        return [choose(self._recipe.hash, identifier, "background", num_scenes) for identifier in image_ids]

    def _scene_name(self, scene: int) -> str | None:
        return self._recipe.backgrounds[scene] if self._recipe.backgrounds else None

    def _prepare(self, keys: list[tuple[int, int]]) -> None:
        """Render and count the (class, scene) pairs that are new."""
        recipe = self._recipe
        new = [key for key in dict.fromkeys(keys) if key not in self._prompts]
        prompts = [
            render(recipe.template, recipe.classes.rows[class_index], self._scene_name(scene))
            for class_index, scene in new
        ]
        counts = clip_token_counts(prompts)
        self._prompts.update(zip(new, zip(prompts, counts, strict=True), strict=True))
