"""A finished model -> MLflow's model registry, under an alias, as a graph that loads without this project.

Example: python -m jobs.register --preset fashion --alias champion

Read back with: mlflow.pytorch.load_model("models:/synthclones-fashion_mnist@champion"); it takes pictures as uint8
[N, S, S, 3] and gives logits [N, classes].
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.model_identity import model_directory, model_identity, named_model, registered_name
from pipeline.core.recipe import resolve_recipe


@click.command(help=__doc__)
@job_options
@click.option(
    "--model", "model_id", metavar="ID", help="Directory name under models/. Default: the config's own model."
)
@click.option("--name", metavar="TEXT", help="Of the registered model. Default: synthclones-<class table>.")
@click.option("--alias", metavar="TEXT", default="champion", show_default=True, help="Moves to this model.")
def main(job: JobContext, model_id: str | None, name: str | None, alias: str) -> None:
    """Register the model and print where it is found."""
    config = job.config
    if model_id is None:
        directory = model_directory(model_identity(config, resolve_recipe(config))[1])
    else:
        directory = named_model(model_id)
    # MLflow and torch take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.stages.model_registry import register_model

    found = register_model(config, job.store, directory, name or registered_name(config), alias)
    was = "was registered already as" if found["existing"] else "is"
    human = f"{directory} {was} version {found['version']} of {found['name']}: {found['model_uri']}"
    job.finish(human, found)


if __name__ == "__main__":
    run_job(main)
