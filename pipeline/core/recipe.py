"""The recipe of an image set: everything that decides pixels, gathered and hashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.choices import Guidance, Template
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import ID_LENGTH, SCHEMA_VERSION, class_permutation, content_hash
from pipeline.core.model_source import CHECKER, model_fingerprint
from pipeline.core.prompts import resolve_template, template_uses


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Args:
        identity: JSON-able content of the hash, kept in manifests so that two recipes can be compared.
        hash: sha256 of `identity`, 64 hex digits.
        classes: the class table, in label order.
        permutation: class order inside every index.
        templates: Jinja sources of the prompt, each with its weight.
        backgrounds: scene names, empty when no template uses them.
        styles: empty when no template uses them.
        guidance: as the config says it.
    """

    identity: dict[str, Any]
    hash: str
    classes: ClassTable
    permutation: list[int]
    templates: list[tuple[str, float]]
    backgrounds: list[str]
    styles: list[str]
    guidance: Guidance

    @property
    def id(self) -> str:
        """Directory name of the prompt table and the image set."""
        return self.hash[:ID_LENGTH]

    @property
    def prompts_dir(self) -> str:
        """Where the prompt table lies under the storage root."""
        return f"prompts/{self.id}"

    @property
    def images_dir(self) -> str:
        """Where the image set lies under the storage root."""
        return f"images/{self.id}"

    @property
    def previews_dir(self) -> str:
        """Where the preview page lies under the storage root."""
        return f"previews/{self.id}"


def resolve_recipe(config: RunConfig) -> Recipe:
    """Gather what decides pixels. Raises `InputError` when a table, template or model is wrong."""
    settings = config.recipe
    classes = load_class_table(config.classes)
    templates = _templates(settings.template)
    backgrounds = load_backgrounds(settings.backgrounds) if _any_uses(templates, "b") else []
    styles = _styles(settings.styles) if _any_uses(templates, "style") else []
    lossless = settings.image_format == "png"
    identity = {
        "schema_version": SCHEMA_VERSION,
        "classes": classes.rows,
        # One template stands here as it did before there were mixtures, so that older sets keep their hash.
        "template": templates[0][0] if isinstance(settings.template, str) else [list(part) for part in templates],
        **({"styles": styles} if styles else {}),
        "backgrounds": backgrounds,
        "model": model_fingerprint(settings.model),
        **({"safety_model": model_fingerprint(settings.safety_model, CHECKER)} if settings.safety_model else {}),
        **settings.model_dump(
            mode="json",
            exclude={"template", "backgrounds", "styles", "model", "safety_model"}
            | ({"image_quality"} if lossless else set()),
        ),
    }
    return Recipe(
        identity=identity,
        hash=content_hash(identity),
        classes=classes,
        permutation=class_permutation([row["wnid"] for row in classes.rows]),
        templates=templates,
        backgrounds=backgrounds,
        styles=styles,
        guidance=settings.guidance_scale,
    )


def _templates(setting: Template) -> list[tuple[str, float]]:
    if isinstance(setting, str):
        return [(resolve_template(setting), 1.0)]
    return [(resolve_template(part.template), part.weight) for part in setting]


def _any_uses(templates: Sequence[tuple[str, float]], variable: str) -> bool:
    return any(template_uses(source, variable) for source, _ in templates)


def _styles(styles: Sequence[str]) -> list[str]:
    if not styles or not all(style.strip() for style in styles):
        raise InputError("the template uses `style`, so recipe.styles must list some, none empty: [photo, sketch]")
    return list(styles)
