"""Models -> linear probes of their frozen features on other data sets: top-1 and log-odds beside the real twin.

Example: python -m jobs.transfer --preset fashion --twin --baselines --dataset digits
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pipeline.cli import JobContext, job_options, model_options, run_job
from pipeline.core.text_table import aligned


@click.command(help=__doc__)
@job_options
@model_options
@click.option("--baselines", "with_baselines", is_flag=True, help="Also random weights and raw pixels.")
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME|FOLDER",
    help="A set of docs/transfer.md, or a folder of your own; repeatable. Default: transfer.datasets.",
)  # fmt: skip
@click.option("--download", is_flag=True, help="Let torchvision fetch what is not there.")
def main(
    context: JobContext,
    seeds: tuple[int, ...],
    twin: bool,
    model_ids: tuple[str, ...],
    with_baselines: bool,
    datasets: tuple[str, ...],
    download: bool,
) -> None:
    """Find models and data sets, probe, print the table."""
    # Torch and its friends take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.stages.encoder_choice import baselines, chosen_encoders
    from pipeline.stages.transfer import transfer

    encoders = chosen_encoders(context.config, context.store, model_ids, seeds, twin=twin)
    if with_baselines:
        encoders += baselines(encoders, pixels=True)
    names = datasets or context.config.transfer.datasets
    manifest = transfer(
        context.config, context.store, encoders, names, lambda line: click.echo(line, err=True), download=download
    )
    metrics = context.store.read_json(manifest["metrics"])
    where = context.store.uri(manifest["metrics"])
    context.finish(f"{_table(metrics)}\nnumbers: {where}", {**manifest, "metrics": where})


def _table(metrics: Mapping[str, Any]) -> str:
    """One line per group of encoders, one column per set, then the means."""
    names = [found["name"] for found in metrics["sets"]]
    rows = [["encoder", "models", *names, "mean", "of groups", "log-odds"]]
    for row in metrics["rows"]:
        cells = [_percent(row["sets"][name]) for name in names]
        means = [f"{100 * row[key]:.1f}" for key in ("top1_mean", "top1_mean_of_groups")]
        rows.append([row["group"], str(len(row["encoders"])), *cells, *means, f"{row['log_odds_mean']:+.2f}"])
    lines = aligned(rows)
    unfinished = sum(cell["unfinished"] for row in metrics["rows"] for cell in row["sets"].values())
    notes = [f"{unfinished} final solvers stopped before they converged"] if unfinished else []
    left_out = [f"left out: {', '.join(metrics['missing'])} (see above)"] if metrics["missing"] else []
    return "\n".join([*lines, *notes, *left_out])


def _percent(cell: Mapping[str, Any]) -> str:
    spread = "" if cell["top1_std"] is None else f" ± {100 * cell['top1_std']:.1f}"
    return f"{100 * cell['top1_mean']:.1f}{spread}"


if __name__ == "__main__":
    run_job(main)
