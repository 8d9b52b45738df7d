"""`python -m jobs.plan`: images, bytes, GPU hours and money of a preset, before anything starts and after it ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import FiniteRange, JobContext, job_options, run_job

if TYPE_CHECKING:
    from pipeline.core.run_plan import Market


@dataclass(frozen=True)
class Prices:
    """What the price options say.

    Args:
        clusters_file: another cluster file than the one that ships.
        market: which price.
        images_per_s: of one GPU, as the user knows it.
    """

    clusters_file: Path | None
    market: Market
    images_per_s: float | None


NO_PRICES = Prices(None, "on_demand", None)
"""None of the options was given."""


def price_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of `Prices`; the command is called with `prices`."""

    @click.option(
        "--clusters", "clusters_file", type=Path, metavar="FILE", help="Another cluster file than the one here."
    )
    @click.option("--spot", is_flag=True, help="At the price of machines that may be taken away.")
    @click.option(
        "--images-per-s",
        type=FiniteRange(min=0, min_open=True),
        metavar="X",
        help="Of one GPU with this recipe, measured.",
    )
    @wraps(function)
    def command(
        *arguments: Any, clusters_file: Path | None, spot: bool, images_per_s: float | None, **others: Any
    ) -> None:
        prices = Prices(clusters_file, "spot" if spot else "on_demand", images_per_s)
        function(*arguments, prices=prices, **others)

    return command


@click.command()
@click.option("--cluster", metavar="NAME", help="Of the cluster file; default: h200x8, or local on CPUs.")
@price_options
@job_options
def main(job: JobContext, cluster: str | None, prices: Prices) -> None:
    """Say what making the images of a preset takes and, when shards are there, what they took. Writes nothing."""
    from pipeline.core.image_set import each_summary, published_shards
    from pipeline.core.recipe import resolve_recipe
    from pipeline.core.run_plan import cut_prompts, load_clusters, plan_run, what_happened

    recipe = resolve_recipe(job.config)
    table = load_clusters(prices.clusters_file)
    name = cluster or ("h200x8" if job.config.generate.device == "cuda" else "local")
    published = sorted(published_shards(job.store, recipe.images_dir))
    summaries = each_summary(job.store, recipe.images_dir, published)
    actual = what_happened(job.config, table, name, prices.market, summaries) if published else None
    plan = plan_run(job.config, recipe, table, name, prices.market, prices.images_per_s, actual)
    plan |= cut_prompts(recipe, plan["images"])
    job.finish("\n".join(lines(plan, actual)), {"plan": plan, "actual": actual})


def lines(plan: dict[str, Any], actual: dict[str, Any] | None) -> list[str]:
    """The plan for people."""
    from pipeline.core.clip_tokens import CONTEXT_LENGTH
    from pipeline.core.run_plan import on_gpus
    from pipeline.core.text_table import few_digits

    estimate = "" if plan["prompts_counted"] == plan["images"] else f" (counted on {plan['prompts_counted']:,})"
    market = plan["market"].replace("_", " ")
    text = [
        f"images         {plan['images']:,} of {plan['classes']:,} classes in {plan['shards']:,} shards",
        f"prompts cut    {plan['prompts_cut']:,} at CLIP's 77 tokens{estimate}",
        f"stored         {plan['stored_gb']:,.1f} GB, ${plan['usd_storage_per_month']:,.2f} a month",
        f"speed          {few_digits(plan['images_per_s_per_gpu'])} images/s per GPU ({plan['speed_source']})",
        f"on {plan['cluster']:<12}{plan['gpu_hours']:,.2f} GPU hours: {plan['wall_hours']:,.2f} on {on_gpus(plan)}",
        f"money          ${plan['usd']:,.2f} ({market}), ${plan['usd_per_million_images']:,.0f} per million images",
    ]
    if plan["negative_prompt_tokens"] > CONTEXT_LENGTH:
        text.insert(2, f"               the negative prompt too: it has {plan['negative_prompt_tokens']:,} tokens")
    if actual:
        text.append(
            f"there already  {actual['images']:,} images, {actual['gpu_hours']:,.2f} GPU hours at "
            f"{few_digits(actual['images_per_s_per_gpu'])} images/s per GPU, ${actual['usd']:,.2f}"
        )
        if actual["stored_gb"] is not None:
            text.append(f"               {few_digits(actual['stored_gb'])} GB, {actual['prompts_cut']:,} prompts cut")
    return text


if __name__ == "__main__":
    run_job(main)
