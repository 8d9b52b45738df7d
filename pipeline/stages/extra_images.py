"""More images of some classes: the extra shards that are missing, through the same pool as all others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pipeline.core.artifact import Store, read_manifest
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.extra_counts import ExtraImages, counts_by_class
from pipeline.core.extra_set import extra_manifest, publish_extra_manifest, published_extras
from pipeline.core.extra_shards import extra_shards
from pipeline.core.image_set import as_begun, claim_image_set
from pipeline.core.model_source import local_model_dir
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.storage_probe import check_storage
from pipeline.stages.generate import check_failures, check_machine, make_shards, outstanding
from pipeline.stages.progress import Tally
from pipeline.stages.prompts import ensure_prompt_table
from pipeline.stages.shard_order import EXTRA
from pipeline.stages.tracking import tracked_run


def generate_extras(
    config: RunConfig,
    store: Store,
    extra: ExtraImages,
    *,
    retry_failed: bool = False,
    make_maker: Callable[..., Any] | None = None,
) -> dict[str, Any]:
    """Make the extra images of some classes that are not there yet, and nothing else.

    Args:
        config: of the run.
        store: the storage root, which has the recipe's set.
        extra: how many extra images each class shall have in all, so that a second call adds none. They are made in
            shards of `generate.batch_size`: there may be up to one batch of a class more.
        retry_failed: make the shards again that hold failed rows.
        make_maker: see `pipeline.stages.shard_actor.ShardActor`.

    Returns:
        The manifest of the set's extra images (`extra/manifest.json`) with `images_dir`, `images_made` in this call and
        `mlflow_run_id`; JSON-able.

    Raises:
        InputError: there is no finished set, or as `generate`.
        WorkError: as `generate`.
    """
    recipe = resolve_recipe(config)
    counts = counts_by_class(extra, recipe.classes).tolist()
    mend = "extra images lie beside a finished set; run `python -m jobs.generate` with the same settings first"
    read_manifest(store, recipe.images_dir, mend)
    wanted = extra_shards(counts, config.generate.batch_size)
    worker = {"replace": retry_failed, "make_maker": make_maker}
    made, run_id = make_extra_shards(config, recipe, store, wanted, counts, worker)
    done = extra_manifest(store, recipe.images_dir)
    assert done is not None
    check_failures(config, recipe, store, done["failed"], done["rows"], done["failure_reasons"])
    return {**done, "images_dir": recipe.images_dir, "images_made": made, "mlflow_run_id": run_id}


def make_extras_again(config: RunConfig, store: Store, shards: Sequence[int], identity: Mapping[str, Any]) -> None:
    """Make extra shards anew, each in the place of its old file, and bring their manifest up to date.

    The manifest goes on to speak of the shards that it spoke of: an interrupted growth beyond them stays one.

    Args:
        config: of the run.
        store: the storage root.
        shards: extra ones of the set.
        identity: of the set.

    Raises:
        InputError: as `generate`.
        WorkError: as `generate`.
    """
    config = as_begun(config, identity)
    recipe = resolve_recipe(config)
    nothing_more = [0] * len(recipe.classes)
    make_extra_shards(config, recipe, store, shards, nothing_more, {"replace": True}, remake=shards)


def make_extra_shards(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    wanted: Sequence[int],
    counts: Sequence[int],
    worker: Mapping[str, Any],
    remake: Collection[int] = (),
) -> tuple[int, str | None]:
    """Make what is not there of some extra shards, then the manifest; (images made here, id of the MLflow run).

    Args:
        config: of the run.
        recipe: of the config.
        store: the storage root.
        wanted: extra shards.
        counts: of every class, what the manifest shall speak of at least; all 0 leaves its counts as they are.
        worker: `replace` and `make_maker` of `pipeline.stages.shard_actor.ShardActor`.
        remake: shards of `wanted` that are made again although they are published.

    Raises:
        InputError: as `generate`.
        WorkError: as `generate`.
    """
    if cluster_address() is None:
        local_model_dir(config.recipe.model)
    check_machine(config.generate)
    claim_image_set(config, recipe, store)  # its shapes
    check_storage(store, recipe.images_dir)
    begin = config.model_copy(update={"images_per_class": 1})  # extra images have no rows in the prompt table
    parts = ensure_prompt_table(begin, recipe, store)["parts"]
    missing, earlier, made = list(wanted), Tally(), 0
    if wanted:
        published = published_extras(store, recipe.images_dir).difference(remake)
        retry_failed = bool(worker["replace"])
        missing, earlier = outstanding(config, recipe, store, wanted, published, retry_failed=retry_failed)
    params = {"recipe_hash": recipe.hash, "classes": config.classes, **config.recipe.model_dump(mode="json")}
    with tracked_run(config, store, "generate_extras", recipe.id, params, {"generate": recipe.id}) as run:
        run.set_tags({"mlflow.source.name": "python -m jobs.generate --per-class"})
        if missing:
            there = len(wanted) - len(missing)
            made = make_shards(
                begin,
                recipe,
                store,
                parts,
                missing,
                done_before=there,
                run=run,
                worker=worker,
                earlier=earlier,
                part=EXTRA,
            )
        if any(counts) or extra_manifest(store, recipe.images_dir) is not None:
            done = publish_extra_manifest(store, recipe, config.generate.batch_size, counts)
            numbers = {key: done[key] for key in ("rows", "ok", "failed", "images_per_s", "seconds")}
            run.log_metrics(numbers, done["shards"])
    return made, run.run_id
