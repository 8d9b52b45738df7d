"""Is one model better than another, on the same real test images? Paired difference, McNemar's test, class by class.

Example: python -m jobs.compare --preset fashion 0123456789abcdef fedcba9876543210

Each word is a model's directory name under models/, or those of several seeds of one setting, joined by commas.
All further ones are compared with the first. Results: comparisons/ID/ under the root.
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.errors import InputError
from pipeline.core.model_identity import named_model


@click.command(help=__doc__)
@click.argument("models", nargs=-1, metavar="MODEL[,MODEL…] …")
@job_options
def main(job: JobContext, models: tuple[str, ...]) -> None:
    """Score the models and print the table."""
    settings = [[named_model(name) for name in word.split(",")] for word in models]
    if len(settings) < 2:
        raise InputError("give at least two models to compare, as directory names under models/")
    # Torch and its friends take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.stages.compare import compare

    found = compare(job.config, job.store, settings)
    folder = job.store.uri(found["directory"])
    human = f"\n{found.pop('text')}\ncomparison.md and comparison.json in {folder}"
    job.finish(human, {**found, "directory": folder})


if __name__ == "__main__":
    run_job(main)
