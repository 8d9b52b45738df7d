"""Models -> what their features look like on the test set: sparsity, distances in a class, redundancy, coding length.

Example: python -m jobs.analyze --preset fashion --twin --baselines
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
@click.option("--baselines", "with_baselines", is_flag=True, help="Also random weights.")
def main(
    context: JobContext, seeds: tuple[int, ...], twin: bool, model_ids: tuple[str, ...], with_baselines: bool
) -> None:
    """Find the models, look at their features, print the table."""
    # Torch and its friends take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.stages.analyze import analyze
    from pipeline.stages.encoder_choice import baselines, chosen_encoders

    encoders = chosen_encoders(context.config, context.store, model_ids, seeds, twin=twin)
    if with_baselines:
        encoders += baselines(encoders, pixels=False)
    manifest = analyze(context.config, context.store, encoders, lambda line: click.echo(line, err=True))
    where = {key: manifest[key] and context.store.uri(manifest[key]) for key in ("metrics", "map")}
    files = "\n".join(f"{key}: {path}" for key, path in where.items() if path)
    context.finish(f"{_table(context.store.read_json(manifest['metrics']))}\n{files}", {**manifest, **where})


def _table(metrics: Mapping[str, Any]) -> str:
    """One line per group of encoders; the constants stand under it, since the numbers mean nothing without them."""
    from pipeline.stages.analyze import NUMBERS

    rows = [["encoder", "models", *(name.replace("_", " ") for name in NUMBERS)]]
    rows += [
        [row["group"], str(len(row["encoders"])), *(_spread(row[name]) for name in NUMBERS)] for row in metrics["rows"]
    ]
    lines = aligned(rows)
    constants, test_set = metrics["constants"], metrics["test_set"]
    note = (
        f"{test_set['images']:,} images of {test_set['name']}; sparsity: share below "
        f"{constants['sparsity_threshold']:g} after L2; coding length: nats, eps^2 {constants['coding_eps_squared']:g}"
    )
    return "\n".join([*lines, note])


def _spread(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "–"
    return f"{value['mean']:.4g}" + ("" if value["std"] is None else f" ± {value['std']:.2g}")


if __name__ == "__main__":
    run_job(main)
