"""Pictures for the report: small copies of generated and of real images, as data URIs with what is known of each."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.core.schema import OK
from pipeline.core.stored_rows import telling_image

if TYPE_CHECKING:  # torch, which a page of images alone does not need
    from pipeline.core.metrics import Scores

MAX_CLASSES = 40
"""Classes with a row of pictures; of more, the best and the worst half of this."""
MAX_PICTURES = 240
"""Generated pictures in one report, which keeps it below 3 MB."""
MAX_PER_CLASS = 8
MAX_SIDE = 96
"""Pixels; larger images are shrunk. Small ones are shown enlarged with square pixels."""
MAX_EXACT = 32
"""Pixels up to which a picture is shown exactly (PNG, 2 KB); a photograph of 96 pixels would take 20 KB."""
NUM_RIGHT, NUM_WRONG = 3, 3
"""Test images of a class: right ones, and the most confident wrong ones."""


@dataclass(frozen=True)
class Picture:
    """One image of the report.

    Args:
        source: data URI; empty when there is nothing to show.
        alt: what it shows, for those who do not see it.
        caption: lines under it; any text, escaped by the template.
        is_wrong: a test image that was taken for another class.
        frame: what stands in the place of an image that is not shown.
    """

    source: str
    alt: str
    caption: Sequence[str]
    is_wrong: bool = False
    frame: str = ""


@dataclass
class ClassRow:
    """The pictures of one class.

    Args:
        name: short name.
        wnid: WordNet id.
        generated: images of the image set, in its order.
        tested: real test images with the verdict on each.
    """

    name: str
    wnid: str
    generated: list[Picture] = field(default_factory=list)
    tested: list[Picture] = field(default_factory=list)


def shown_classes(per_class: Sequence[float | None]) -> list[int]:
    """Labels that get a row, in label order: all, or the best and the worst ones by accuracy.

    Classes without a test image (None) are neither; they fill up what is left where there are not enough others.
    """
    if len(per_class) <= MAX_CLASSES:
        return list(range(len(per_class)))
    ranked = sorted((value, label) for label, value in enumerate(per_class) if value is not None)
    others = [label for label, value in enumerate(per_class) if value is None]
    labels = [label for _, label in ranked]
    if len(labels) < MAX_CLASSES:
        return sorted([*labels, *others[: MAX_CLASSES - len(labels)]])
    return sorted([*labels[: MAX_CLASSES // 2], *labels[-(MAX_CLASSES // 2) :]])


def pictures_per_class(num_shown: int) -> int:
    """How many generated pictures a row has."""
    return max(1, min(MAX_PER_CLASS, MAX_PICTURES // num_shown))


def generated_picture(row: Mapping[str, Any]) -> Picture:
    """A row of an image set (columns of `schema.IMAGE_SCHEMA`) with status `ok`."""
    assert row["status"] == OK, row["status"]
    with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
        source = thumbnail_uri(image.convert("RGB"))
    caption = [row["prompt"], f"seed {row['seed']}", f"image {row['image_id']}"]
    return Picture(source, f"generated image of {row['class_name']}", caption)


def fill_generated(
    rows: Mapping[int, ClassRow], image_rows: Iterable[tuple[str, Mapping[str, Any]]], per_class: int
) -> None:
    """Put the first good images of each shown class (by label) into its row; stops reading when all are full.

    `image_rows`: each with its shard, for the `WorkError` when the image cannot be decoded.
    """
    wanting = set(rows)
    for where, image_row in image_rows:
        label = image_row["class_index"]
        if label in wanting and image_row["status"] == OK:
            with telling_image(where, image_row["image_id"]):
                rows[label].generated.append(generated_picture(image_row))
            if len(rows[label].generated) == per_class:
                wanting.discard(label)
        if not wanting:
            return


def chosen_examples(scores: Scores, label: int) -> list[int]:
    """Positions of a class's test images to show: its first right ones, then its most confident wrong ones."""
    of_class = np.flatnonzero(scores.labels == label)
    right = of_class[scores.correct[of_class]]
    wrong = of_class[~scores.correct[of_class]]
    surest = wrong[np.argsort(-scores.confidences[wrong], kind="stable")]
    return [int(position) for position in (*right[:NUM_RIGHT], *surest[:NUM_WRONG])]


def scored_picture(image: NDArray[np.uint8], scores: Scores, position: int, names: Sequence[str]) -> Picture:
    """A test image (uint8 [H, W, 3]) with what the model took it for."""
    true, predicted = names[int(scores.labels[position])], names[int(scores.predictions[position])]
    is_wrong = not bool(scores.correct[position])
    verdict = f"{'✗' if is_wrong else '✓'} {predicted} {100 * float(scores.confidences[position]):.0f}%"
    alt = f"real test image of {true}, taken for {predicted}"
    return Picture(thumbnail_uri(Image.fromarray(image)), alt, [verdict, f"test image {position}"], is_wrong)


def thumbnail_uri(image: Image.Image, max_side: int = MAX_SIDE) -> str:
    """An RGB image as a data URI, no side above `max_side` pixels; encoded anew, so only pixels come from outside."""
    exact = max(image.size) <= min(MAX_EXACT, max_side)
    out = io.BytesIO()
    if exact:
        image.save(out, "PNG", optimize=True)
    else:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        image.save(out, "JPEG", quality=80)
    return data_uri(out.getvalue(), "image/png" if exact else "image/jpeg")


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    """Bytes as the `src` of an image."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
