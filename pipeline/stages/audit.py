"""Image set -> audit: what is wrong with it, class by class, without labels; CLIP's part by actors of Ray Data."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

os.environ.setdefault("RAY_DATA_USE_DATASOURCE_V2", "0")  # see pipeline/stages/ingest.py

import numpy as np
import ray.data

from pipeline.core.artifact import MANIFEST, Store, sha256_bytes
from pipeline.core.audit import ClipRows, SetColumns, class_numbers, totals, worst_first
from pipeline.core.audit_page import AuditPage, ClassLine, audit_picture, complaints, render_audit
from pipeline.core.audit_reading import first_pictures, read_set_columns, real_columns, rows_of, with_compared_images
from pipeline.core.clip_layout import CLIP
from pipeline.core.clip_scores import FILE, clip_scores_bytes
from pipeline.core.cluster import cluster_address
from pipeline.core.config import ModelConfig, RunConfig
from pipeline.core.credentials import covered
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.gallery import MAX_SIDE, ClassRow
from pipeline.core.identity import ID_LENGTH, content_hash, image_id, num_shards
from pipeline.core.image_set import (
    check_row_format,
    each_summary,
    prefix_shards,
    read_columns,
    read_identity,
    set_totals,
    shard_path,
)
from pipeline.core.model_source import local_model_dir, model_fingerprint
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.training_images import real_folder
from pipeline.core.transfer_config import AuditConfig
from pipeline.stages.data_context import leave_words_to_us
from pipeline.stages.pulse import start_pulse, voice, watched
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.tracking import tracked_run

if TYPE_CHECKING:  # torch and transformers, which only the workers need
    from pipeline.core.clip_judge import ClipJudge

AUDIT_VERSION = 2
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
        identity["real"] = folder.fingerprint
    audit_id = content_hash(identity)[:ID_LENGTH]
    directory = f"audits/{audit_id}"
    existing = store.exists(f"{directory}/{MANIFEST}")
    params = config.audit.model_dump(mode="json")
    with tracked_run(config, store, "audit", audit_id, params, {"generate": recipe.id}, optional=existing) as run:
        if existing:  # its numbers and its page once more, for what a lost server missed
            done: dict[str, Any] = store.read_json(f"{directory}/{MANIFEST}")
            _track(run, done["totals"], store.read_bytes(done["page"]))
            return done
        shards = [shard_path(recipe.images_dir, number) for number in numbers]
        columns = read_set_columns(store, shards, config.images_per_class)
        clip = clip_rows(config, store, recipe, shard_size) if clip_identity else None
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
    return model_fingerprint(_model(settings), CLIP)


def _check_device(device: str) -> None:
    if device == "cuda":
        from pipeline.core.features import check_device

        check_device(device, "audit.device")


def _model(settings: AuditConfig) -> ModelConfig:
    return ModelConfig(id=settings.clip.id, revision=settings.clip.revision)


def missing_words(store: Store, shards: Sequence[str], columns: SetColumns, clip: ClipRows | None) -> list[str]:
    """What the audit could not say, one sentence each."""
    said = [] if clip else [NO_CLIP]
    scores = read_columns(store, shards[0], ["nsfw_score"])["nsfw_score"]
    if scores.null_count == len(scores) and not (columns.statuses == "nsfw").any():
        said.append("Whether images are unsafe: no safety checker ran (recipe.safety_model names one).")
    return said


def clip_rows(config: RunConfig, store: Store, recipe: Recipe, shard_size: int) -> ClipRows:
    """CLIP's word on the first good images of each class, shard by shard, as actors of Ray Data finish.

    Raises `InputError` when the model cannot be loaded or the device is not there, `WorkError` when a shard is damaged.
    """
    settings = config.audit
    each = min(settings.clip_images_per_class, config.images_per_class)
    count = num_shards(len(recipe.classes), each, shard_size)
    paths = [shard_path(recipe.images_dir, number) for number in range(count)]
    columns: dict[str, list[Any]] = {name: [] for name in ClipRows.__dataclass_fields__}
    with ray_session():
        leave_words_to_us()
        pulse = start_pulse()
        rows = ray.data.from_items([{"shard": path} for path in paths], override_num_blocks=count).flat_map(
            ClipActor,
            fn_constructor_args=(settings, store, recipe.classes.spoken_names, each, pulse),
            concurrency=settings.num_actors,
            num_cpus=settings.num_cpus_per_actor,
            num_gpus=settings.num_gpus_per_actor,
        )
        needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}
        with closing(watched(rows.iter_rows(), pulse, needs, config.generate.stall_timeout_s, "audit")) as judged:
            for row in judged:
                if row.get("error"):
                    raise InputError(row["error"])
                for name, values in columns.items():
                    values.append(row[name])
    return ClipRows(**{name: np.asarray(values) for name, values in columns.items()})


class ClipActor:
    """Called by Ray Data with one shard at a time; answers with one row for each of its first good images.

    An error of the start is a row too: Ray would restart the actor again and again.

    Args:
        settings: model, prompt, batch size and device.
        store: the storage root.
        names: of the classes, in label order.
        images_per_class: how many of each class are looked at.
        pulse: handle of the `pipeline.stages.pulse.Pulse` actor that hears of every step.
    """

    def __init__(
        self, settings: AuditConfig, store: Store, names: Sequence[str], images_per_class: int, pulse: Any
    ) -> None:
        self._tell = voice(pulse)
        self._tell("starting")
        from pipeline.core.clip_judge import ClipJudge
        from pipeline.core.features import check_device

        self._settings, self._store, self._images_per_class = settings, store, images_per_class
        self._judge: ClipJudge | None = None
        try:
            check_device(settings.device, "audit.device")
            directory = local_model_dir(_model(settings), CLIP)
            self._judge = ClipJudge(directory, names, settings.clip_prompt, settings.device)
            self._tell("ready")
        except InputError as error:
            self._error = str(error)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The shard's rows: fields of `ClipRows`."""
        if self._judge is None:
            return [{"error": self._error}]
        self._tell("making", says=f"judging {row['shard']}")
        found = list(self._judged(self._judge, row["shard"]))
        self._tell("shard")
        return found

    def _judged(self, judge: ClipJudge, shard: str) -> Iterator[dict[str, Any]]:
        pictures = list(first_pictures(self._store, shard, self._images_per_class))
        size = self._settings.batch_size
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            said = judge.judge([image for _, _, image in part], [label for label, _, _ in part])
            self._tell("batch")
            for number, (label, index, _) in enumerate(part):
                yield {
                    "labels": label,
                    "indices": index,
                    "best": int(said.best[number]),
                    "own_score": float(said.own_score[number]),
                    "best_score": float(said.best_score[number]),
                    "domain": int(said.domain[number]),
                    "vectors": said.vectors[number],
                }


def _pictures(
    config: RunConfig,
    store: Store,
    recipe: Recipe,
    labels: Sequence[int],
    against: dict[tuple[int, int], list[str]],
    shard_size: int,
) -> list[ClassRow]:
    each = min(config.audit.pictures_per_class, config.images_per_class)
    rows = rows_of(store, recipe, labels, each, shard_size)
    shown = []
    for label in labels:
        told = [i for i in range(each) if (label, i) in against]
        order = [*told, *(i for i in range(each) if (label, i) not in against)]
        pictures = [audit_picture(rows[image_id(label, i)], against.get((label, i), [])) for i in order]
        shown.append(ClassRow(recipe.classes.names[label], recipe.classes.wnids[label], pictures))
    return shown
