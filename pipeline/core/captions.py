"""Captions that the embedded generator, and any other of `jobs.train_generator`, is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.classes import load_class_table
from pipeline.core.generator_config import GeneratorConfig
from pipeline.core.prompts import Drawn, render, resolve_template, template_uses


@dataclass(frozen=True)
class Captions:
    """All captions of the training images, as rendered by the recipes.

    Args:
        by_class: `by_class[label][template]` are the captions of one class and recipe: one, or one per background.
    """

    by_class: list[list[list[str]]]

    @classmethod
    def of(cls, config: GeneratorConfig) -> Captions:
        """The captions of a config. Raises `InputError` for unknown tables or templates."""
        sources = [resolve_template(template) for template in config.templates]
        scenes = load_backgrounds(config.backgrounds)
        return cls(
            [
                [
                    [
                        render(source, row, Drawn(background=scene))
                        for scene in (scenes if template_uses(source, "b") else [None])
                    ]
                    for source in sources
                ]
                for row in load_class_table(config.classes).rows
            ]
        )

    def texts(self) -> list[str]:
        """Every caption, by class, template and background, after the empty one."""
        return ["", *(text for rows in self.by_class for texts in rows for text in texts)]
