"""The recipe of an image set: everything that decides pixels, gathered and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.identity import ID_LENGTH, SCHEMA_VERSION, class_permutation, content_hash
from pipeline.core.model_source import model_fingerprint
from pipeline.core.prompts import resolve_template, template_uses


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe.

    Args:
        identity: JSON-able content of the hash, kept in manifests so that two recipes can be compared.
        hash: sha256 of `identity`, 64 hex digits.
        classes: the class table, in label order.
        permutation: class order inside every index.
        template: Jinja source of the prompt.
        backgrounds: scene names, empty when the template has none.
    """

    identity: dict[str, Any]
    hash: str
    classes: ClassTable
    permutation: list[int]
    template: str
    backgrounds: list[str]

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
    template = resolve_template(settings.template)
    backgrounds = load_backgrounds(settings.backgrounds) if template_uses(template, "b") else []
    lossless = settings.image_format == "png"
    identity = {
        "schema_version": SCHEMA_VERSION,
        "classes": classes.rows,
        "template": template,
        "backgrounds": backgrounds,
        "model": model_fingerprint(settings.model),
        **settings.model_dump(
            mode="json",
            exclude={"template", "backgrounds", "model"} | ({"image_quality"} if lossless else set()),
        ),
    }
    return Recipe(
        identity=identity,
        hash=content_hash(identity),
        classes=classes,
        permutation=class_permutation([row["wnid"] for row in classes.rows]),
        template=template,
        backgrounds=backgrounds,
    )
