"""What a run will take before it starts: images, prompts that are cut, bytes, GPU hours, money; and what it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.core.choices import highest
from pipeline.core.clip_tokens import clip_token_counts
from pipeline.core.config import GenerateConfig, RecipeConfig, RunConfig
from pipeline.core.config_loading import PRESETS, load_yaml, nearest, validate
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen
from pipeline.core.identity import num_rows
from pipeline.core.image_set import ShardSummary
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe

MAX_COUNTED_ROWS = 100_000
"""Prompts are rendered for so many rows; the share that is cut stands for the rest: scenes are drawn at random."""

REFERENCE_PIXELS = 224**2
"""Of the image that `train_images_per_s` is given for."""

Market = Literal["on_demand", "spot"]


class ReferenceWork(Frozen):
    """The image that the clusters' speeds are given for."""

    model: str
    """Its hub id; other models are faster or slower by factors that nobody can guess."""
    width: int = Field(gt=0)
    """Pixels."""
    height: int = Field(gt=0)
    """Pixels."""
    num_inference_steps: int = Field(gt=0)
    """Denoising steps."""
    guidance: bool
    """Whether each step needs two forwards."""


class Prices(Frozen):
    """USD for one GPU and hour."""

    on_demand: float = Field(ge=0)
    """Nobody takes it away."""
    spot: float = Field(ge=0)
    """May be taken away; a lost shard is made again."""


class ClusterSpec(Frozen):
    """A cluster to plan for."""

    gpus: int = Field(gt=0)
    """GPUs that work at the same time."""
    usd_per_gpu_hour: Prices
    """Prices."""
    images_per_s: float | None = Field(gt=0)
    """Of one GPU at the reference work, null when unknown."""
    speed_source: str
    """Where that number comes from."""
    train_images_per_s: float | None = Field(None, gt=0)
    """Of one GPU training ResNet50 at 224x224 in half precision, null when unknown."""
    train_speed_source: str = ""
    """Where that number comes from."""


class ClusterTable(Frozen):
    """The file of clusters, prices and sizes."""

    reference: ReferenceWork
    """What `images_per_s` means."""
    clusters: dict[str, ClusterSpec] = Field(min_length=1)
    """By name."""
    bytes_per_pixel: dict[str, Annotated[float, Field(gt=0)]]
    """Stored bytes per pixel, by image format."""
    usd_per_gb_month: float = Field(ge=0)
    """Price of object storage."""


def load_clusters(path: Path | None = None) -> ClusterTable:
    """The table that ships, or a user's. Raises `InputError`."""
    where = path or PRESETS / "clusters.yaml"
    return validate(ClusterTable, load_yaml(where), f"{str(where)!r}: ")


def find_cluster(table: ClusterTable, name: str) -> ClusterSpec:
    """A cluster by name. Raises `InputError` with the nearest one."""
    if name not in table.clusters:
        known = ", ".join(table.clusters)
        raise InputError(f"--cluster {name!r} is unknown{nearest(name, table.clusters)}; there are {known}")
    return table.clusters[name]


def rate_of(
    config: RunConfig, table: ClusterTable, cluster: ClusterSpec, given: float | None, actual: dict[str, Any] | None
) -> tuple[float, str]:
    """Images per second of one GPU for this recipe, and where the number comes from.

    The user's own number, else what the set's published shards took, else the table's, scaled.

    Raises:
        InputError: none of them is known.
    """
    if given:
        return given, "given by --images-per-s"
    if actual and actual["images_per_s_per_gpu"]:
        return actual["images_per_s_per_gpu"], f"measured on the {actual['shards']:,} shards that are there"
    if cluster.images_per_s and config.recipe.model.id == table.reference.model:
        return cluster.images_per_s / relative_work(config.recipe, table.reference), cluster.speed_source
    raise InputError(
        f"nobody knows how fast {config.recipe.model.id!r} draws on this cluster; make a few images with "
        "`python -m jobs.generate --images-per-class 1` and the same --preset, --set and --root, then plan again, or "
        "give --images-per-s"
    )


def relative_work(recipe: RecipeConfig, reference: ReferenceWork) -> float:
    """How many reference images one image of the recipe costs.

    Proportional to pixels, steps and forwards per step. Attention grows faster than pixels, so a larger image costs
    somewhat more than this says.
    """
    pixels = recipe.width * recipe.height / (reference.width * reference.height)
    steps = recipe.num_inference_steps / reference.num_inference_steps
    forwards = (1 + (highest(recipe.guidance_scale) > 1)) / (1 + reference.guidance)
    return pixels * steps * forwards


def training_gpu_hours(config: RunConfig, num_images: int, cluster: ClusterSpec) -> float | None:
    """GPU hours of training on that many images, in proportion to the pixels of an image's crops; None when unknown."""
    if cluster.train_images_per_s is None:
        return None
    settings, pixels = config.train, config.train.input_size**2
    if settings.augmentation == "dino_multicrop":
        pixels += settings.multi_crop.num_local * settings.multi_crop.local_size**2
    return num_images * settings.epochs * pixels / REFERENCE_PIXELS / cluster.train_images_per_s / 3600


def gpus_at_work(settings: GenerateConfig, shards: int, gpus: int) -> int:
    """GPUs of a cluster that the pool of so many shards takes; an actor that reserves none counts as one."""
    return min(gpus, math.ceil(settings.largest_pool(shards) * (settings.num_gpus_per_actor or 1)))


def on_gpus(plan: Mapping[str, Any]) -> str:
    """`8 GPUs`, or how many of them a plan leaves idle and what takes them."""
    busy, gpus = plan["gpus_at_work"], plan["gpus"]
    if busy == gpus:
        return f"{gpus} GPUs"
    more = plan["useful_actors"]
    mend = f"--set {plan['pool_setting']}={more} takes more" if more > plan["actors"] else "it has no more shards"
    return f"{busy} of {gpus} GPUs ({mend})"


def plan_run(
    config: RunConfig,
    recipe: Recipe,
    table: ClusterTable,
    cluster_name: str,
    market: Market = "on_demand",
    images_per_s: float | None = None,
    actual: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Images, bytes, hours and money of making a whole set, and hours of one training on it; JSON-able.

    `wall_hours` are of the GPUs that the config's actors take (`gpus_at_work`), not of all that the cluster has.

    Args:
        config: of the run.
        recipe: of the config.
        table: clusters and prices.
        cluster_name: where it shall run.
        market: which price.
        images_per_s: of one GPU for this very recipe, as the user knows it.
        actual: what `what_happened` says of the set's shards.

    Raises:
        InputError: the cluster or the speed is unknown, or the image format has no size in the table.
    """
    cluster = find_cluster(table, cluster_name)
    rows = num_rows(len(recipe.classes), config.images_per_class, config.generate.shard_size)
    rate, source = rate_of(config, table, cluster, images_per_s, actual)
    image_format = config.recipe.image_format
    if image_format not in table.bytes_per_pixel:
        raise InputError(f"the cluster file has no bytes_per_pixel for {image_format!r}; add it")
    stored = rows * config.recipe.width * config.recipe.height * table.bytes_per_pixel[image_format]
    gpu_hours = rows / rate / 3600
    shards = rows // config.generate.shard_size
    busy = gpus_at_work(config.generate, shards, cluster.gpus)
    dollars = gpu_hours * getattr(cluster.usd_per_gpu_hour, market)
    return {
        "cluster": cluster_name,
        "market": market,
        "images": rows,
        "classes": len(recipe.classes),
        "shards": shards,
        "stored_gb": stored / 1e9,
        "usd_storage_per_month": stored / 1e9 * table.usd_per_gb_month,
        "images_per_s_per_gpu": rate,
        "speed_source": source,
        "gpus": cluster.gpus,
        "gpus_at_work": busy,
        "actors": config.generate.largest_pool(shards),
        "pool_setting": f"generate.{config.generate.pool_bound}",
        "useful_actors": min(shards, int(cluster.gpus / (config.generate.num_gpus_per_actor or 1))),
        "gpu_hours": gpu_hours,
        "wall_hours": gpu_hours / busy,
        "trained_on": rows + config.train.num_extra,
        "train_gpu_hours": training_gpu_hours(config, rows + config.train.num_extra, cluster),
        "train_speed_source": cluster.train_speed_source,
        "usd": dollars,
        "usd_per_million_images": dollars / rows * 1e6,
    }


def cut_prompts(recipe: Recipe, rows: int) -> dict[str, int]:
    """How many of a set's prompts CLIP would cut, counted on the first rows; exact when those are all.

    Also the tokens of the negative prompt, end marks included, before anything is cut; 0 where there is none.

    Seconds of work, so it is no part of `plan_run`.
    """
    counted = min(rows, max(MAX_COUNTED_ROWS, len(recipe.classes)))
    cut = sum(PromptRows(recipe).table(0, counted)["truncated"].to_pylist())
    negative = recipe.identity["negative_prompt"]
    return {
        "prompts_cut": round(cut / counted * rows),
        "prompts_counted": counted,
        "negative_prompt_tokens": clip_token_counts([negative])[0] if negative else 0,
    }


def what_happened(
    config: RunConfig, table: ClusterTable, cluster_name: str, market: Market, summaries: Iterable[ShardSummary]
) -> dict[str, Any]:
    """The same numbers of the shards that are there, in one pass: rows, GPU hours, bytes, money; JSON-able.

    Hours are those in which an engine worked, over all actors; loading of models, waiting nodes and shards that were
    lost in the making are not in them, but they are on the bill. Shards of versions that did not record the engine's
    time count from their beginning to their last image, which is too long where `shards_in_flight` was above 1; bytes
    and cut prompts are None when there are such shards.
    """
    rows = shards = stored_bytes = truncated = 0
    engine_s = 0.0
    is_recorded = True
    for summary in summaries:
        rows += summary.rows
        shards += 1
        engine_s += summary.actor_s
        is_recorded = is_recorded and summary.engine_s is not None
        stored_bytes += summary.stored_bytes or 0
        truncated += summary.truncated or 0
    hours = engine_s / 3600 * (config.generate.num_gpus_per_actor or 1.0)
    price = getattr(find_cluster(table, cluster_name).usd_per_gpu_hour, market)
    return {
        "images": rows,
        "shards": shards,
        "prompts_cut": truncated if is_recorded else None,
        "stored_gb": stored_bytes / 1e9 if is_recorded else None,
        "gpu_hours": hours,
        "images_per_s_per_gpu": rows / hours / 3600 if hours else 0.0,
        "usd": hours * price,
    }
