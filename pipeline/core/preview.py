"""A few images of a set before it is made: which ones, what they cost, and the page that shows them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.gallery import ClassRow, Picture, thumbnail_uri
from pipeline.core.identity import image_id, num_shards
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe
from pipeline.core.report import render_page
from pipeline.core.schema import FAILED, NSFW

MAX_CLASSES, MAX_PER_CLASS = 20, 4
"""Shown when nothing else is asked for."""
MAX_IMAGES = 1000
"""Of one page, which is then about 15 MB."""
MAX_SIDE = 256
"""Pixels; larger images are shrunk."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PreviewPage:
    """Everything the page shows. All text may be hostile: the template escapes it.

    Args:
        recipe_id: of the set.
        created: date and time, UTC.
        class_table: its name.
        num_classes: of the whole table.
        rows: classes with pictures.
        counts: shown images by status.
        batch_size: of the engine's calls.
        seconds_per_image: of one actor; None when every timed batch failed.
        load_s: seconds an actor needs to load the model.
        estimate: what the whole set will need, in words.
        is_large: the images are more than a few dozen pixels wide, so they are shown larger and smoothly.
        made_by: what made them, name -> text.
        settings: dotted name -> value of the resolved config.
    """

    recipe_id: str
    created: str
    class_table: str
    num_classes: int
    rows: Sequence[ClassRow]
    counts: Mapping[str, int]
    batch_size: int
    seconds_per_image: float | None
    load_s: float
    estimate: str
    is_large: bool
    made_by: Mapping[str, str]
    settings: Mapping[str, Any]


def render_preview(page: PreviewPage) -> str:
    """The page as HTML that needs nothing but itself."""
    return render_page("preview.html.jinja", page=page)


def chosen_labels(
    config: RunConfig, recipe: Recipe, num_classes: int | None, per_class: int | None
) -> tuple[list[int], int]:
    """Which classes are shown, spread evenly over the table, and how many images of each.

    Args:
        config: of the run.
        recipe: of the config.
        num_classes: how many classes; default: all, at most `MAX_CLASSES`.
        per_class: how many images of each; default: those of the set, at most `MAX_PER_CLASS`.

    Raises:
        InputError: the set has fewer of them, or they are too many for one page.
    """
    there = len(recipe.classes)
    shown = min(there, MAX_CLASSES) if num_classes is None else num_classes
    each = min(config.images_per_class, MAX_PER_CLASS) if per_class is None else per_class
    if not 0 < shown <= there:
        raise InputError(f"--num-classes {shown}: the class table {config.classes!r} has {there}; give 1 to {there}")
    if not 0 < each <= config.images_per_class:
        raise InputError(
            f"--num-images-per-class {each}: the set will hold {config.images_per_class} of each; give 1 to "
            f"{config.images_per_class}, or raise --images-per-class"
        )
    if shown * each > MAX_IMAGES:
        raise InputError(
            f"{shown} classes with {each} images each are {shown * each} images, too many for one page; lower "
            f"--num-classes or --num-images-per-class to {MAX_IMAGES} together"
        )
    return [position * there // shown for position in range(shown)], each


def chosen_rows(recipe: Recipe, labels: Sequence[int], per_class: int) -> list[dict[str, Any]]:
    """The rows of the set's prompt table for the first images of each class, class by class."""
    identifiers = [image_id(label, i) for label in labels for i in range(per_class)]
    rows: list[dict[str, Any]] = PromptRows(recipe).table_of(identifiers).to_pylist()
    return rows


def hours_needed(config: RunConfig, num_classes: int, batch_s: float) -> tuple[float, int]:
    """Hours that the whole set needs on its largest pool, and the number of actors of that.

    Every shard has whole batches (its last one is padded), and the last shards are not shared. Loading the model and
    waiting for nodes are not in it.

    Args:
        config: of the run.
        num_classes: of the set.
        batch_s: seconds of one batch on one actor.
    """
    settings = config.generate
    shards = num_shards(num_classes, config.images_per_class, settings.shard_size)
    actors = settings.largest_pool(shards)
    batches = -(-settings.shard_size // settings.batch_size) * -(-shards // actors)
    return batches * batch_s / 3600, actors


def preview_picture(row: Row, max_side: int = MAX_SIDE) -> Picture:
    """A finished row of a shard (columns of `schema.IMAGE_SCHEMA`): its image, or a frame with the reason for none.

    Larger images are shrunk to `max_side` pixels.
    """
    status = row["status"]
    caption = [row["prompt"], f"seed {row['seed']}", status, f"image {row['image_id']}"]
    if row["truncated"]:
        caption.append(f"prompt cut: {row['token_count']} tokens, CLIP reads 77")
    if status in (FAILED, NSFW):
        return Picture("", f"no image of {row['class_name']}: {status}", caption, frame=f"{status}: {row['reason']}")
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        source = thumbnail_uri(image.convert("RGB"), max_side)
    return Picture(source, f"generated image of {row['class_name']}", caption)
