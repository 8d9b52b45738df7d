"""Which recipe, number of images and training are best for your classes: a search with Ray Tune, images made once.

    python -m tune.sweep --preset fashion

It may be stopped or killed at any time; the same command goes on. Results: sweeps/NAME/ under the root.
"""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.errors import InputError
from pipeline.core.search_space import check_space, describe_value, grid
from pipeline.core.sweep_config import SweepConfig, load_sweep


@click.command(help=__doc__)
@job_options_with(plans=True)
@click.option(
    "--space", default="fashion", show_default=True, metavar="NAME|FILE", help="A sweep that ships, or a .yaml."
)
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="In place of the sweep's num_trials.")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="Trials at a time; default: as many as fit.")
@click.option("--retry-failed", is_flag=True, help="Start the failed trials of an ended sweep again.")
@click.option("--name", metavar="NAME", help="Of the results' folder; default: that of the sweep.")
def main(
    job: JobContext, space: str, trials: int | None, slots: int | None, retry_failed: bool, name: str | None
) -> None:
    """Run what is missing of a sweep and print its table."""
    sweep = load_sweep(space)
    if trials is not None:
        sweep = sweep.model_copy(update={"num_trials": trials})
    name = name or Path(space).stem
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name {name!r} becomes a folder: use letters, digits, - and _")
    if job.dry_run:
        check_space(sweep, job.config)
        job.finish(*_plan(sweep))
        return
    from pipeline.stages.sweep import Sweep  # torch and Ray take seconds to import: wrong options do not wait

    found = Sweep(sweep, job.config, job.store, name)
    facts = found.run(lambda line: click.echo(f"sweep: {line}"), slots, retry_failed=retry_failed)
    table = job.store.read_bytes(f"{found.directory}/table.md").decode()
    folder = job.store.uri(found.directory)
    lines = [f"table.md, table.csv, plot.png and result.json in {folder}"]
    lines += [f"charts in MLflow: {found.charts}"] if found.charts else []
    job.finish(f"\n{table}\n" + "\n".join(lines), facts)


def _plan(sweep: SweepConfig) -> tuple[str, dict[str, object]]:
    number = len(grid(sweep)) if sweep.search == "grid" else sweep.num_trials
    lines = [f"sweep: {sweep.search}, {number} trials, compared on {sweep.validation.source} images"]
    for key, domain in sweep.space.items():
        values = ", ".join(describe_value(value) for value in domain.ends())
        kind = "one of" if domain.choice is not None else "between"
        lines.append(f"  {key}: {kind} {values}" + (f", when {describe_value(domain.when)}" if domain.when else ""))
    return "\n".join(lines), {"trials": number, "sweep": sweep.model_dump(mode="json")}


if __name__ == "__main__":
    run_job(main)
