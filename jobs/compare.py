"""Is one model better than another, on the same real test images? Paired difference, McNemar's test, class by class.

Example: python -m jobs.compare --preset fashion 0123456789abcdef fedcba9876543210

Each word is a model's directory name under models/, or the id or name of its training's run in MLflow, or those of
several seeds of one setting, joined by commas.
All further ones are compared with the first. Results: comparisons/ID/ under the root.
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.artifact import MANIFEST
from pipeline.core.errors import InputError
from pipeline.core.model_identity import named_model


@click.command(help=__doc__)
@click.argument("models", nargs=-1, metavar="MODEL[,MODEL…] …")
@job_options
def main(job: JobContext, models: tuple[str, ...]) -> None:
    """Score the models and print the table."""
    words = [[(name, named_model(name)) for name in word.split(",")] for word in models]
    if len(words) < 2:
        raise InputError("give at least two models to compare, as directory names under models/ or MLflow's runs")
    settings = [[_found(job, name, directory) for name, directory in seeds] for seeds in words]
    # Torch and its friends take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.stages.compare import compare

    found = compare(job.config, job.store, settings)
    folder = job.store.uri(found["directory"])
    human = f"\n{found.pop('text')}\ncomparison.md and comparison.json in {folder}"
    job.finish(human, {**found, "directory": folder})


def _found(job: JobContext, name: str, directory: str) -> str:
    if job.store.exists(f"{directory}/{MANIFEST}"):
        return directory
    from pipeline.stages.run_search import model_of_run

    return model_of_run(job.config, job.store, name)


if __name__ == "__main__":
    run_job(main)
