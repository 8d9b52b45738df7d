"""Prompts -> images: the shards that are missing, through a pool of actors, each published once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.cluster import cluster_address
from pipeline.core.config import GenerateConfig, RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.extra_shards import rows_in
from pipeline.core.identity import num_shards
from pipeline.core.image_set import claim_image_set, each_summary, published_shards, set_totals
from pipeline.core.model_source import local_model_dir
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.schema import FAILED
from pipeline.core.set_gallery import sample_page
from pipeline.core.shard_range import shard_range
from pipeline.core.storage_probe import check_storage
from pipeline.core.unread_words import tell_unread
from pipeline.core.versions import installed_versions
from pipeline.stages.offers import shortage, spare
from pipeline.stages.preflight import preflight
from pipeline.stages.progress import Progress, Tally, most_common
from pipeline.stages.prompts import tracked_prompt_table
from pipeline.stages.pulse import Vitals, ask, start_pulse
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.shard_order import WHOLE, shard_order
from pipeline.stages.shard_pool import finished_shards
from pipeline.stages.tracking import tracked_run


def generate(
    config: RunConfig,
    store: Store,
    *,
    retry_failed: bool = False,
    shards: str | None = None,
    remake: Collection[int] = (),
    publishes: bool = True,
    make_maker: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Make the images of a recipe that are not there yet.

    Args:
        config: of the run.
        store: the storage root. The set goes to `images/<id>/`, its manifest last.
        retry_failed: make the shards again that hold failed rows.
        shards: `FIRST:STOP`, the part of the set that is made here; other jobs make the rest, at any time. Whoever
            makes the last part writes the manifest.
        remake: shards that are made again although they are published; each old file stays until its new one is there.
        publishes: write the manifest when no shard is missing; without it the shards are all that changes.
        make_maker: see `pipeline.stages.shard_actor.ShardActor`.

    Returns:
        The set's manifest, or while it cannot be written the totals of this part and `missing_shards`; with
        `images_dir`, `images_made` in this call and `mlflow_run_id`; JSON-able.

    Raises:
        InputError: the recipe, the model or the part is wrong, or the set keeps another shard or batch size.
        WorkError: too many rows failed, or a shard cannot be written; what is published stays.
    """
    recipe = resolve_recipe(config)
    if cluster_address() is None:  # a wrong model is found before anything is written; a cluster's workers fetch it
        local_model_dir(config.recipe.model)
    check_machine(config.generate)
    whole = range(num_shards(len(recipe.classes), config.images_per_class, config.generate.shard_size))
    wanted = shard_range(shards, len(whole))
    parts = tracked_prompt_table(config, recipe, store)["parts"]
    claim_image_set(config, recipe, store)
    check_storage(store, recipe.images_dir)
    published = published_shards(store, recipe.images_dir).difference(remake)
    missing, earlier = outstanding(config, recipe, store, wanted, published, retry_failed=retry_failed)
    params = {"recipe_hash": recipe.hash, "classes": config.classes, **config.recipe.model_dump(mode="json")}
    made = 0
    with tracked_run(config, store, "generate", recipe.id, params, {"build_prompts": recipe.id}) as run:
        if missing:
            tell_unread(config.recipe, recipe)
            worker = {"replace": retry_failed or bool(remake), "make_maker": make_maker}
            made = make_shards(
                config,
                recipe,
                store,
                parts,
                missing,
                done_before=len(wanted) - len(missing),
                run=run,
                worker=worker,
                earlier=earlier,
                part=WHOLE if shards is None else f"{wanted[0]}-{wanted[-1]}",
            )
        others = set(whole).difference(published_shards(store, recipe.images_dir))
        if not publishes or (shards is not None and others):
            manifest = {
                **set_totals(each_summary(store, recipe.images_dir, list(wanted))),
                "shards": len(wanted),
                "missing_shards": len(others),
            }
        else:
            manifest = publish_manifest(config, recipe, store, list(whole))
        run.log_metrics(
            {key: manifest[key] for key in ("rows", "ok", "failed", "images_per_s", "seconds")}, len(wanted)
        )
        hours = manifest["actor_seconds"] / 3600
        run.set_tags({"synthclones.device": config.generate.device, "synthclones.worker_hours": f"{hours:.4f}"})
        if made and run.uri is not None:
            run.log_artifact("gallery.html", sample_page(config, store, recipe))
    check_failures(config, recipe, store, manifest["failed"], manifest["rows"], manifest["failure_reasons"])
    return {**manifest, "images_dir": recipe.images_dir, "images_made": made, "mlflow_run_id": run.run_id}


def outstanding(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    wanted: Sequence[int],
    published: Collection[int],
    *,
    retry_failed: bool,
) -> tuple[list[int], Tally]:
    """The shards of `wanted` (one at least) that are to be made, and the images of the others that no training takes.

    Raises `WorkError` when more failed already than the config allows.
    """
    done = set(published).intersection(wanted)
    tally = Tally()
    if len(done) < len(wanted) or retry_failed:
        for summary in each_summary(store, recipe.images_dir, sorted(done)):
            if retry_failed and summary.counts.get(FAILED):
                done.remove(summary.shard)
            else:
                tally.add(summary)
    rows = rows_in(wanted[0], config.generate.shard_size, config.generate.batch_size)
    check_failures(config, recipe, store, tally.failed.total(), len(wanted) * rows, tally.failed)
    return [shard for shard in wanted if shard not in done], tally


def make_shards(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    parts: list[dict[str, Any]],
    shards: list[int],
    *,
    done_before: int,
    run: RunHandle,
    worker: Mapping[str, Any],
    earlier: Tally | None = None,
    part: str = WHOLE,
) -> int:
    """Make and publish the given shards, all of them uniform or all extra ones; how many images were made here.

    Fewer than asked for when another driver on the same set published some meanwhile; with `replace` all are made.
    `worker`: `replace` and `make_maker` of `ShardActor`. `earlier`: what is not ok of the images before. `part`: of
    `shard_order`.

    Raises:
        InputError: the first worker's reason, when the user can mend it.
        WorkError: every other reason.
    """
    settings = config.generate
    rows = rows_in(shards[0], settings.shard_size, settings.batch_size)
    total, before = (done_before + len(shards)) * rows, done_before * rows
    with (
        ray_session(local_cpus(settings)),
        shard_order(store, recipe.images_dir, shards, part) as shards,
        Progress(total, before, settings.log_interval_s, earlier) as progress,
    ):
        made = found = 0
        next_point_s = 0.0
        pulse = start_pulse()
        if settings.preflight == "always":
            took = preflight(config, recipe, store, parts, pulse)
            print("preflight: " + ", ".join(f"{name} {value:.1f} s" for name, value in took.items()), flush=True)
        if settings.preflight != "never":
            needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}
            # A Ray of this machine alone plans with as many CPUs as the pool needs; GPUs it has as they are.
            lacking = cluster_address() is not None and shortage(needs, settings.num_actors)
            if line := lacking or spare(needs, settings, len(shards)):
                print(f"preflight: {line}", flush=True)
        with closing(finished_shards(config, recipe, store, parts, shards, pulse, worker)) as summaries:
            for summary, is_new in summaries:
                found += summary.rows
                made += summary.rows if is_new else 0
                progress.add(summary, is_new=is_new)
                failed = progress.tally.failed.total()
                is_last = found == len(shards) * rows
                if time.monotonic() >= next_point_s or is_last:
                    # A point for each of 15 shards a second took all of this thread's time (docs/scale.md).
                    next_point_s = time.monotonic() + settings.log_interval_s
                    work = {} if is_last else work_points(ask(pulse))  # the last words are awaited below
                    points = {"images": before + found, "failed_images": failed, **work}
                    run.log_metrics(points, done_before + found // rows)
                check_failures(config, recipe, store, failed, total, progress.tally.failed)
        vitals = ask(pulse)
        print(vitals.work_line(), flush=True)
        run.log_metrics(work_points(vitals), done_before + len(shards))
    return made


def work_points(vitals: Vitals) -> dict[str, float]:
    """Metrics of a run: `seconds.<part>` of all actors so far, and `failed.<kind of error>` images."""
    seconds = {f"seconds.{part}": value for part, value in vitals.seconds.items()}
    return {**seconds, **{f"failed.{kind}": float(count) for kind, count in vitals.failed.items()}}


def publish_manifest(config: RunConfig, recipe: Recipe, store: Store, shards: list[int]) -> dict[str, Any]:
    """Write the set's manifest from the footers of its shards: nothing is counted twice or from memory."""
    settings = config.generate
    path = f"{recipe.images_dir}/{MANIFEST}"
    before = store.read_json(path) if store.exists(path) else None
    if before is not None and before["shards"] > len(shards):  # a smaller request leaves a larger set as it is
        shards = list(range(before["shards"]))
    manifest = {
        "id": recipe.id,
        "recipe_hash": recipe.hash,
        "recipe": recipe.identity,
        "images_per_class": max(config.images_per_class, before["images_per_class"] if before else 0),
        "classes": len(recipe.classes),
        "shards": len(shards),
        "shard_size": settings.shard_size,
        "batch_size": settings.batch_size,
        "engine": settings.engine.model_dump(mode="json"),
        "device": settings.device,
        "torch_threads": settings.torch_threads,
        "num_actors": settings.num_actors,
        "versions": installed_versions("torch", "diffusers", "transformers", "ray"),
        **set_totals(each_summary(store, recipe.images_dir, shards)),
    }
    if manifest != before:
        store.write_json(path, manifest)
    return manifest


def local_cpus(settings: GenerateConfig) -> int:
    """CPUs that a Ray of this machine alone plans with: its own, and no fewer than the pool and its driver need."""
    return max(4, os.cpu_count() or 1, math.ceil(settings.num_actors * settings.num_cpus_per_actor))


def check_machine(settings: GenerateConfig) -> None:
    """Raises `InputError` when a run on this machine alone asks for GPUs that it does not have."""
    if settings.device != "cuda" or cluster_address() is not None:
        return
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            "generate.device is cuda but this machine has no usable GPU; submit to a cluster with GPUs, or give "
            "--set generate.device=cpu --set generate.num_gpus_per_actor=0"
        )


def check_failures(
    config: RunConfig, recipe: Recipe, store: Store, failed: int, total: int, reasons: Mapping[str, int]
) -> None:
    """Raises `WorkError` when more rows failed than the config allows."""
    settings = config.generate
    limits = {"max_failed_fraction": settings.max_failed_fraction * total}
    if settings.max_failed_rows is not None:
        limits["max_failed_rows"] = settings.max_failed_rows
    exceeded = next((name for name, limit in limits.items() if failed > limit), None)
    if exceeded:
        raise WorkError(
            f"{failed} of {total} images of {store.uri(recipe.images_dir)} failed, more than "
            f"generate.{exceeded}={getattr(settings, exceeded)} allows ({most_common(reasons)}); "
            "mend the cause and run again with --retry-failed"
        )
