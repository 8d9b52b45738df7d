"""The first images of every class of a set, as static pages: an index that is searched, and 50 classes on each page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.choices import describe_guidance, describe_template
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.gallery import ClassRow, Picture
from pipeline.core.identity import split_image_id
from pipeline.core.image_set import prefix_shards, published_shards, read_columns, shard_path
from pipeline.core.preview import Row, preview_picture
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.report import render_page
from pipeline.core.stored_rows import telling_image

CLASSES_PER_PAGE = 50
"""A page of 50 classes with 8 pictures is about 3 MB, which opens at once."""
DEFAULT_PER_CLASS = 8
MAX_PICTURES = 50_000
"""Of one gallery: they are held in memory, about 8 KB each."""
MAX_SIDE = 128
"""Pixels of a picture; larger images are shrunk."""
SAMPLE = 100
"""Pictures of the page that goes with a run: a few hundred KB."""
INDEX_SIDE = 48
"""Pixels of the one picture per class in the index."""
COLUMNS = [
    "image_id", "class_index", "class_name", "prompt", "seed", "image", "status", "reason", "token_count", "truncated",
]  # fmt: skip
SEARCH = """
const box = document.getElementById("search");
const cards = [...document.querySelectorAll("a.class-card")].map(card => [card, card.textContent.toLowerCase()]);
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const [card, text] of cards) card.hidden = !words.every(word => text.includes(word));
  document.getElementById("found").textContent = cards.filter(([card]) => !card.hidden).length;
});
"""
"""The index's only script; the page's policy names its hash, so no other text can run."""
SEARCH_HASH = "sha256-" + base64.b64encode(hashlib.sha256(SEARCH.encode()).digest()).decode()


@dataclass(frozen=True)
class ClassCard:
    """A class in the index.

    Args:
        name: short name, any text.
        wnid: WordNet id.
        link: to its place on its page.
        picture: its first image that can be shown; None without any.
    """

    name: str
    wnid: str
    link: str
    picture: Picture | None


def write_gallery(config: RunConfig, store: Store, per_class: int | None) -> dict[str, Any]:
    """Write `galleries/<recipe id>/index.html` and its pages for a published set; older ones are written over.

    Args:
        config: of the run.
        store: the storage root.
        per_class: pictures of each class; default: those of the config, at most `DEFAULT_PER_CLASS`.

    Returns:
        `index` (path), `pages`, `classes`, `images`, `bytes` (of all pages).

    Raises:
        InputError: the set is not there or has fewer images, or so many make no gallery.
        WorkError: a shard is damaged.
    """
    recipe = resolve_recipe(config)
    classes = recipe.classes
    count = min(config.images_per_class, DEFAULT_PER_CLASS) if per_class is None else per_class
    if not 0 < count <= MAX_PICTURES // len(classes):
        raise InputError(
            f"--num-images-per-class {count}: give 1 to {MAX_PICTURES // len(classes)} for {len(classes)} classes"
        )
    rows = [ClassRow(name, wnid) for name, wnid in zip(classes.names, classes.wnids, strict=True)]
    covers: dict[int, Picture] = {}
    _fill(rows, covers, store, recipe, count)
    parts = [rows[start : start + CLASSES_PER_PAGE] for start in range(0, len(rows), CLASSES_PER_PAGE)]
    names = [f"page-{number:03d}.html" for number in range(1, len(parts) + 1)]
    cards = [
        ClassCard(row.name, row.wnid, f"{names[label // CLASSES_PER_PAGE]}#{row.wnid}", covers.get(label))
        for label, row in enumerate(rows)
    ]
    shared = _about(config, recipe, count)
    folder = f"galleries/{shared['recipe_id']}"
    is_large = config.recipe.width > 64
    pages = {
        names[number]: class_page(part, number, names, is_large=is_large, shared=shared)
        for number, part in enumerate(parts)
    }
    pages["index.html"] = index_page(cards, len(parts), shared)  # last: what it links to is there
    for name, page in pages.items():
        store.write_bytes(f"{folder}/{name}", page)
    return {
        "index": f"{folder}/index.html",
        "pages": len(parts),
        "classes": len(rows),
        "images": sum(len(row.generated) for row in rows),
        "bytes": sum(len(page) for page in pages.values()),
    }


def sample_page(config: RunConfig, store: Store, recipe: Recipe) -> bytes:
    """One page with at most `SAMPLE` of a published set's first images, for people who look at a run.

    Raises:
        WorkError: a shard is damaged.
    """
    rows = [ClassRow(name, wnid) for name, wnid in zip(recipe.classes.names, recipe.classes.wnids, strict=True)]
    size = config.generate.shard_size
    shards = sorted(published_shards(store, recipe.images_dir))[: -(-SAMPLE // size)]
    for shard in shards:
        path = shard_path(recipe.images_dir, shard)
        for row in read_columns(store, path, COLUMNS).slice(0, SAMPLE // len(shards)).to_pylist():
            rows[row["class_index"]].generated.append(_picture(row, store.uri(path), MAX_SIDE))
    shown = [row for row in rows if row.generated]
    per_class = max((len(row.generated) for row in shown), default=0)
    shared = _about(config, recipe, per_class)
    is_large = config.recipe.width > 64
    return class_page(shown, 0, ["gallery.html"], is_large=is_large, shared=shared, index=None)


def _about(config: RunConfig, recipe: Recipe, per_class: int) -> dict[str, Any]:
    """What every page of a set says."""
    about = f"{describe_template(config.recipe.template)!r}, guidance {describe_guidance(config.recipe.guidance_scale)}"
    created = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return {"recipe_id": recipe.id, "about": about, "created": created, "per_class": per_class}


def index_page(cards: Sequence[ClassCard], num_pages: int, shared: dict[str, Any]) -> bytes:
    """The index; every text in it is escaped."""
    return render_page(
        "gallery_index.html.jinja", cards=cards, num_pages=num_pages, search=SEARCH, search_hash=SEARCH_HASH, **shared
    ).encode()


def class_page(
    rows: Sequence[ClassRow],
    number: int,
    names: Sequence[str],
    *,
    is_large: bool,
    shared: dict[str, Any],
    index: str | None = "index.html",
) -> bytes:
    """One page of classes, `number` counted from 0 of the files `names`; every text in it is escaped."""
    before = names[number - 1] if number else None
    after = names[number + 1] if number + 1 < len(names) else None
    return render_page(
        "gallery_page.html.jinja",
        rows=rows, number=number + 1, num_pages=len(names), before=before, after=after, index=index,
        is_large=is_large, **shared,
    ).encode()  # fmt: skip


def _fill(rows: Sequence[ClassRow], covers: dict[int, Picture], store: Store, recipe: Recipe, per_class: int) -> None:
    """Put the first images of every class into its row: the set is index-major, so they are its first shards."""
    shards, _ = prefix_shards(store, recipe, per_class)
    with ThreadPoolExecutor() as pool:
        for shard in shards:
            path = shard_path(recipe.images_dir, shard)
            table, where = read_columns(store, path, COLUMNS), store.uri(path)
            wanted = [row for row in table.to_pylist() if split_image_id(row["image_id"])[1] < per_class]
            pictures = pool.map(partial(_picture, where=where, max_side=MAX_SIDE), wanted)
            for row, picture in zip(wanted, pictures, strict=True):
                label = row["class_index"]
                rows[label].generated.append(picture)
                if picture.source and label not in covers:
                    covers[label] = _picture(row, where, INDEX_SIDE)


def _picture(row: Row, where: str, max_side: int) -> Picture:
    """Of a row of the shard `where`. Raises `WorkError` when its image cannot be decoded."""
    with telling_image(where, row["image_id"]):
        return preview_picture(row, max_side)
