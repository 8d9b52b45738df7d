"""A few images per class at the real settings, on one worker like the pool's, as one page; no shard is published."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered
from pipeline.core.errors import WorkError
from pipeline.core.flatten import flatten
from pipeline.core.gallery import MAX_SIDE, ClassRow
from pipeline.core.image_set import IDENTITY, claim_image_set
from pipeline.core.model_source import check_models
from pipeline.core.preview import (
    PreviewPage,
    chosen_labels,
    chosen_rows,
    hours_needed,
    preview_picture,
    render_preview,
)
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import FAILED
from pipeline.core.storage_probe import check_storage
from pipeline.core.unread_words import tell_unread
from pipeline.stages.generate import check_machine, local_cpus
from pipeline.stages.one_worker import ask_one_worker, like_an_actor
from pipeline.stages.pulse import start_pulse
from pipeline.stages.runtime import ray_session

if TYPE_CHECKING:  # torch and diffusers, which only the worker needs
    from pipeline.core.shard_maker import OnBatch

PAGE = "preview.html"


def preview(
    config: RunConfig, store: Store, num_classes: int | None = None, per_class: int | None = None
) -> dict[str, Any]:
    """Make the first images of some classes of the set and write `previews/<recipe id>/preview.html`.

    They are what the set holds or will hold: same prompts, seeds and batch shape. The set itself is not touched.

    Args:
        config: of the run.
        store: the storage root.
        num_classes: how many classes; see `pipeline.core.preview.chosen_labels`.
        per_class: how many images of each.

    Returns:
        path, counts (images by status), load_s, seconds_per_image, hours, num_actors, estimate; JSON-able.

    Raises:
        InputError: recipe, model, device or numbers are wrong, or the set was begun with other settings.
        WorkError: no image could be made (the page is there), or the page cannot be written.
    """
    recipe = resolve_recipe(config)
    labels, each = chosen_labels(config, recipe, num_classes, per_class)
    check_machine(config.generate)
    if store.exists(f"{recipe.images_dir}/{IDENTITY}"):
        claim_image_set(config, recipe, store)  # it is there, so this only compares
    check_storage(store, recipe.previews_dir)
    tell_unread(config.recipe, recipe)
    rows = chosen_rows(recipe, labels, each)
    settings = config.generate
    with ray_session(local_cpus(settings)):
        made = ask_one_worker(_draw, like_an_actor(settings), start_pulse(), config, store, recipe, rows)
    summary = {**_estimate(config, recipe, made["batch_s"]), "counts": made["counts"], "load_s": made["load_s"]}
    path = f"{recipe.previews_dir}/{PAGE}"
    page = _page(config, recipe, labels, made, summary)
    store.write_bytes(path, render_preview(page).encode())
    if set(made["counts"]) == {FAILED}:
        raise WorkError(
            f"all {len(rows)} images failed, the first one with {made['first_reason']}; see {store.uri(path)}"
        )
    return {"path": path, "recipe_id": recipe.id, **summary}


def _draw(
    config: RunConfig, store: Store, recipe: Recipe, rows: Sequence[dict[str, Any]], on_batch: OnBatch
) -> dict[str, Any]:
    """Runs on the worker: the rows' pictures in their order, small enough to travel, and what making them took."""
    from pipeline.core.shard_maker import ShardMaker

    began = time.perf_counter()
    check_models(config.recipe, recipe.identity)
    maker = ShardMaker(config, store, recipe.prompts_dir, [], recipe.images_dir, on_batch)
    load_s = time.perf_counter() - began
    size = config.generate.batch_size
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    # The first call of a model also warms it up, so it is not timed; a single batch is made twice for that.
    made = maker.draw([batches[0], *batches] if len(batches) == 1 else batches)
    timed = [sum(row["seconds"] for row in batch) for batch in made[1:] if all(r["status"] != FAILED for r in batch)]
    finished = [row for batch in made[-len(batches) :] for row in batch]
    return {
        "load_s": load_s,
        "batch_s": sum(timed) / len(timed) if timed else None,
        "pictures": [preview_picture(row) for row in finished],
        "counts": dict(Counter(row["status"] for row in finished)),
        "first_reason": next((row["reason"] for row in finished if row["status"] == FAILED), None),
        "environment": maker.environment,
    }


def _estimate(config: RunConfig, recipe: Recipe, batch_s: float | None) -> dict[str, Any]:
    """What the whole set will need, in numbers and in words."""
    if batch_s is None:
        unknown = "Every timed batch had failed images, so what the whole set needs is not known."
        return {"seconds_per_image": None, "hours": None, "num_actors": None, "estimate": unknown}
    hours, actors = hours_needed(config, len(recipe.classes), batch_s)
    words = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
    return {
        "seconds_per_image": batch_s / config.generate.batch_size,
        "hours": hours,
        "num_actors": actors,
        "estimate": f"{config.images_per_class:,} images per class will need about {words} hours on {actors} such "
        f"{'actor' if actors == 1 else 'actors'}, loading not counted.",
    }


def _page(
    config: RunConfig, recipe: Recipe, labels: Sequence[int], made: dict[str, Any], summary: dict[str, Any]
) -> PreviewPage:
    each = len(made["pictures"]) // len(labels)
    names, wnids = recipe.classes.names, recipe.classes.wnids
    groups = [made["pictures"][start : start + each] for start in range(0, len(made["pictures"]), each)]
    return PreviewPage(
        recipe_id=recipe.id,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        class_table=config.classes,
        num_classes=len(recipe.classes),
        rows=[ClassRow(names[c], wnids[c], group) for c, group in zip(labels, groups, strict=True)],
        counts=summary["counts"],
        batch_size=config.generate.batch_size,
        seconds_per_image=summary["seconds_per_image"],
        load_s=summary["load_s"],
        estimate=summary["estimate"],
        is_large=max(config.recipe.width, config.recipe.height) > MAX_SIDE,
        made_by=made["environment"],
        settings={name: covered(str(value)) for name, value in flatten(config.model_dump(mode="json")).items()},
    )
