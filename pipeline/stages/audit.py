"""Image set -> audit: what is wrong with it, class by class, without labels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from pipeline.core.artifact import MANIFEST, Store, sha256_bytes
from pipeline.core.audit import ClipRows, SetColumns, class_numbers, totals, worst_first
from pipeline.core.audit_page import AuditPage, ClassLine, audit_picture, complaints, render_audit
from pipeline.core.audit_reading import (
    read_set_columns,
    real_columns,
    rows_of,
    unseen_pictures,
    with_compared_images,
)
from pipeline.core.clip_layout import CLIP
from pipeline.core.clip_scores import FILE, clip_scores_bytes
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered
from pipeline.core.finished import finished
from pipeline.core.flatten import flatten
from pipeline.core.gallery import MAX_SIDE, ClassRow, Picture
from pipeline.core.identity import ID_LENGTH, content_hash, image_id, split_image_id
from pipeline.core.image_set import (
    check_row_format,
    each_summary,
    prefix_shards,
    read_columns,
    read_identity,
    set_totals,
    shard_path,
)
from pipeline.core.model_source import model_fingerprint
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import NSFW
from pipeline.core.stored_rows import telling_image
from pipeline.core.training_images import real_folder, real_side
from pipeline.core.transfer_config import AuditConfig
from pipeline.stages.audit_clip import clip_model, clip_rows
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.tracking import tracked_run

AUDIT_VERSION = 3
"""Part of an audit's id: raise it when the numbers or the page change."""
PLACE = {"batch_size", "num_actors", "num_cpus_per_actor", "num_gpus_per_actor", "device", "clip"}
"""Fields of `AuditConfig` that say where and how; the CLIP model is in the identity by its content."""
NO_CLIP = (
    "Whether the images show their class, and whether they look like photos: give a CLIP model by "
    "--set audit.clip.id=FOLDER, or a hub id with --set audit.clip.revision=COMMIT."
)


def audit(config: RunConfig, store: Store, *, twin: bool = False) -> dict[str, Any]:
    """Look at a config's image set and write `audits/<id>/`; a finished audit is not made again.

    Args:
        config: the set (its prefix of `images_per_class`), the limits, tracking.
        store: the storage root.
        twin: also the duplicates and distances of as many real training images.

    Returns:
        The manifest: `page` and `metrics` (paths), `totals` (see `pipeline.core.audit.totals`), `real` (likewise, None
        without `twin`), `missing`, `seconds`, …

    Raises:
        InputError: there is no such set, it has fewer images, the CLIP model or the device is not there.
        WorkError: a shard is damaged, or a worker was lost.
    """
    started = time.monotonic()
    recipe = resolve_recipe(config)
    check_row_format(read_identity(store, recipe.images_dir), store.uri(recipe.images_dir))
    numbers, shard_size = prefix_shards(store, recipe, config.images_per_class)
    clip_identity = clip_fingerprint(config.audit)
    if clip_identity and cluster_address() is None:  # a cluster's workers may have what this machine lacks
        _check_device(config.audit.device)
    identity = {
        "audit_version": AUDIT_VERSION,
        "set_sha256": set_totals(each_summary(store, recipe.images_dir, numbers))["set_sha256"],
        "images_per_class": config.images_per_class,
        "limits": config.audit.model_dump(mode="json", exclude=PLACE),
        "clip": clip_identity,
        "twin": twin,
    }
    if twin and (folder := real_folder(with_compared_images(config))) is not None:
        identity |= {"real": folder.fingerprint, "real_side": real_side(config)}  # their hashes depend on both
    audit_id = content_hash(identity)[:ID_LENGTH]
    directory = f"audits/{audit_id}"
    done = finished(store, directory, "page", "metrics")
    if done is not None and clip_identity and not store.exists(f"{directory}/{FILE}"):
        done = None  # trainings filter by it
    params = config.audit.model_dump(mode="json")
    with tracked_run(
        config, store, "audit", audit_id, params, {"generate": recipe.id}, optional=done is not None
    ) as run:
        if done is not None:  # its numbers and its page once more, for what a lost server missed
            _track(run, done["totals"], store.read_bytes(done["page"]))
            return done
        shards = [shard_path(recipe.images_dir, number) for number in numbers]
        columns = read_set_columns(store, shards, config.images_per_class)
        clip = None
        if clip_identity:  # a damaged picture is found before CLIP's hours; those that CLIP opens, it names itself
            for _ in _page_pictures(store, recipe, unseen_pictures(columns, config.audit), {}, shard_size):
                pass
            clip = clip_rows(config, store, recipe, shard_size)
        by_class, near_rows = class_numbers(columns, clip, len(recipe.classes), config.audit)
        order, badness = worst_first(by_class)
        whole = totals(columns, near_rows, by_class)
        real = _real_totals(config, len(recipe.classes)) if twin else None
        against = complaints(columns, near_rows, clip, recipe.classes.names)
        missing = missing_words(store, shards, columns, clip)
        lines = [
            ClassLine(recipe.classes.names[label], recipe.classes.wnids[label], badness[label], by_class[label])
            for label in order
        ]
        page = AuditPage(
            recipe_id=recipe.id,
            created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            class_table=config.classes,
            totals=whole,
            real=real,
            lines=lines,
            rows=_pictures(config, store, recipe, order[: config.audit.worst_classes], against, shard_size),
            missing=missing,
            has_clip=clip is not None,
            duplicate_distance=config.audit.duplicate_distance,
            pairs_per_class=config.audit.pairs_per_class,
            clip_images_per_class=config.audit.clip_images_per_class,
            is_large=max(config.recipe.width, config.recipe.height) > MAX_SIDE,
            settings={k: covered(str(v)) for k, v in flatten(config.model_dump(mode="json")).items()},
        )
        html = render_audit(page).encode()
        classes = [{"name": x.name, "wnid": x.wnid, "badness": x.badness, **x.numbers} for x in lines]
        store.write_json(
            f"{directory}/metrics.json", {"totals": whole, "real": real, "missing": missing, "classes": classes}
        )
        store.write_bytes(f"{directory}/audit.html", html)
        if clip is not None:
            store.write_bytes(f"{directory}/{FILE}", clip_scores_bytes(clip))
        manifest = {
            "kind": "audit",
            "audit_id": audit_id,
            "identity": identity,
            "page": f"{directory}/audit.html",
            "page_sha256": sha256_bytes(html),
            "metrics": f"{directory}/metrics.json",
            "totals": whole,
            "real": real,
            "missing": missing,
            "worst": [x.name for x in lines[:5]],
            "seconds": time.monotonic() - started,
            "mlflow_run_id": run.run_id,
            "config": config.model_dump(mode="json"),
        }
        _track(run, whole, html)
        store.write_json(f"{directory}/{MANIFEST}", manifest)
    return manifest


def _track(run: RunHandle, whole: dict[str, Any], page: bytes) -> None:
    run.log_metrics({k: v for k, v in flatten(whole).items() if v is not None}, step=0)
    run.log_artifact("audit.html", page)


def _real_totals(config: RunConfig, num_classes: int) -> dict[str, Any]:
    columns = real_columns(config)
    by_class, near_rows = class_numbers(columns, None, num_classes, config.audit)
    return totals(columns, near_rows, by_class)


def clip_fingerprint(settings: AuditConfig) -> dict[str, Any] | None:
    """What names the CLIP model, None without one. Raises `InputError` when it is not there or not pinned."""
    if not settings.clip.id:
        return None
    return model_fingerprint(clip_model(settings), CLIP)


def _check_device(device: str) -> None:
    if device == "cuda":
        from pipeline.core.features import check_device

        check_device(device, "audit.device")


def missing_words(store: Store, shards: Sequence[str], columns: SetColumns, clip: ClipRows | None) -> list[str]:
    """What the audit could not say, one sentence each."""
    said = [] if clip else [NO_CLIP]
    scores = read_columns(store, shards[0], ["nsfw_score"])["nsfw_score"]
    if scores.null_count == len(scores) and not columns.has_status(NSFW).any():
        said.append("Whether images are unsafe: no safety checker ran (recipe.safety_model names one).")
    return said


def _pictures(
    config: RunConfig,
    store: Store,
    recipe: Recipe,
    labels: Sequence[int],
    against: dict[tuple[int, int], list[str]],
    shard_size: int,
) -> list[ClassRow]:
    each = min(config.audit.pictures_per_class, config.images_per_class)
    identifiers = [image_id(label, index) for label in labels for index in range(each)]
    pictures = dict(_page_pictures(store, recipe, identifiers, against, shard_size))
    shown = []
    for label in labels:
        told = [i for i in range(each) if (label, i) in against]
        order = [*told, *(i for i in range(each) if (label, i) not in against)]
        of_class = [pictures[image_id(label, i)] for i in order]
        shown.append(ClassRow(recipe.classes.names[label], recipe.classes.wnids[label], of_class))
    return shown


def _page_pictures(
    store: Store,
    recipe: Recipe,
    identifiers: Sequence[int],
    against: dict[tuple[int, int], list[str]],
    shard_size: int,
) -> Iterator[tuple[int, Picture]]:
    """(id, picture) of some images. Raises `WorkError` when a shard or an image is damaged."""
    for path, row in rows_of(store, recipe, identifiers, shard_size):
        with telling_image(store.uri(path), row["image_id"]):
            picture = audit_picture(row, against.get(split_image_id(row["image_id"]), []))
        yield row["image_id"], picture
