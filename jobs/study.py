"""A study of what the accuracy depends on: guidance, recipe, number of images, each with its real twin, over seeds.

    python -m jobs.study --preset fashion

It takes hours and may be stopped at any time; the same command goes on. Results: studies/NAME/ under the root.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jobs.plan import NO_PRICES, Prices, price_options
from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered
from pipeline.core.errors import InputError
from pipeline.core.recipe import Recipe
from pipeline.core.study_config import load_study
from pipeline.core.study_plan import StudyPlan, plan_study
from pipeline.core.study_report import outline_text


@click.command(help=__doc__)
@job_options_with(plans=True)
@click.option(
    "--study", default="fashion", show_default=True, metavar="NAME|FILE", help="A study that ships, or a .yaml."
)
@click.option(
    "--only", multiple=True, metavar="AXIS[=SETTING]", help="Only this axis, or one row of it, and twins; repeatable."
)
@click.option("--max-cells", type=click.IntRange(min=1), metavar="N", help="Stop after N cells.")
@click.option(
    "--slots", type=click.IntRange(min=1), metavar="N", help="Trainings at a time; default: as the CPUs allow."
)
@click.option("--cluster", metavar="NAME", help="With --dry-run: what each row costs there, from the cluster file.")
@price_options
def main(
    job: JobContext,
    study: str,
    only: tuple[str, ...],
    max_cells: int | None,
    slots: int | None,
    cluster: str | None,
    prices: Prices,
) -> None:
    """Run what is missing of a study and print its table."""
    if cluster and not job.dry_run:
        raise InputError("--cluster only says what rows would cost; give it with --dry-run")
    if not cluster and prices != NO_PRICES:
        raise InputError("--clusters, --spot and --images-per-s price rows of --cluster NAME; give it with them")
    settings = load_study(study)
    plan = plan_study(settings, job.config, given=job.overrides)
    chosen = plan_study(settings, job.config, only, job.overrides)
    # Torch and Ray take seconds to import: --help and a wrong option do not wait for them.
    from pipeline.stages.study import Study

    words = [*job.source, "--study", study, *(part for word in job.overrides for part in ("--set", covered(word)))]
    found = Study(plan, chosen, job.store, Path(study).stem, f"python -m jobs.study {shlex.join(words)}")
    found.look_at_data(lambda line: click.echo(f"study: {line}"), must_be_there=not job.dry_run)
    outline = found.outline(max_cells)
    if job.dry_run:
        lines = [f"  {cell.name}: {cell.config.train.epochs} epochs" for cell in chosen.cells]
        costs, table = _costs(chosen, found.recipe_of, cluster, prices) if cluster else (None, "")
        job.finish("\n".join([f"study: {outline_text(outline)}", *lines, table]), {**outline, "costs": costs})
        return
    click.echo(f"study: {outline_text(outline)}")
    found.run(say=lambda line: click.echo(f"study: {line}"), max_cells=max_cells, slots=slots)
    table = found.write_table()
    folder = job.store.uri(found.directory)
    summary = {**found.outline(), "directory": folder, "results": list(found.results.values())}
    job.finish(f"\n{table}\ntable.md, table.csv, sets.csv, plot.png and, at the end, pages.md in {folder}", summary)


def _costs(
    plan: StudyPlan, recipe_of: Callable[[RunConfig], Recipe], cluster: str, prices: Prices
) -> tuple[list[dict[str, Any]], str]:
    from pipeline.core.run_plan import load_clusters, plan_run
    from pipeline.core.study_costs import costs_markdown, study_costs, total_costs

    clusters = load_clusters(prices.clusters_file)

    def planned(config: RunConfig) -> dict[str, Any]:
        return plan_run(config, recipe_of(config), clusters, cluster, prices.market, prices.images_per_s)

    rows = study_costs(plan, planned)
    return rows, costs_markdown(rows, total_costs(plan, planned))


if __name__ == "__main__":
    run_job(main)
