"""How many more images each class should get: from finished trainings on several sizes of one set.

    python -m tune.scaling --preset fashion --recipe "c, h_c" --size 100 --size 200 --size 400
    python -m tune.grow --preset fashion --recipe "c, h_c" --size 100 --size 200 --size 400 --images 4000

The first trains, the second looks at its models on real validation images, never on a test set. Results:
studies/growth-NAME/ under the root; `jobs.generate --config growth.yaml --per-class growth.csv` takes them from there.
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.errors import InputError
from pipeline.core.study_plan import plan_study
from pipeline.core.sweep_config import ValidationConfig
from tune.scaling import grid_study, own_template


@click.command(help=__doc__)
@job_options
@click.option("--recipe", metavar="TEMPLATE", help="Of the trainings; default: that of the preset.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    required=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Images per class of finished trainings; repeatable, 3 or more.",
)
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Trainings of each size.")
@click.option("--lengths", metavar="STUDY", help="As tune.scaling was called with.")
@click.option("--images", required=True, type=click.IntRange(min=1), metavar="N", help="More images, of all classes.")
@click.option(
    "--start", type=click.IntRange(min=1), metavar="N", help="Of the sizes, the one to grow; default: largest."
)
@click.option("--validation", metavar="FOLDER", help="Real images, a sub-folder per WNID; default: Fashion-MNIST's.")
@click.option("--validation-images", type=click.IntRange(min=1), default=1000, show_default=True, help="Of each class.")
@click.option("--name", default="default", show_default=True, metavar="NAME", help="Of the results' folder.")
def main(
    job: JobContext,
    recipe: str | None,
    sizes: tuple[int, ...],
    seeds: int,
    lengths: str | None,
    images: int,
    start: int | None,
    validation: str | None,
    validation_images: int,
    name: str,
) -> None:
    """Score the models class by class, fit, and write the proposal."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name {name!r} becomes a folder: use letters, digits, - and _")
    template = recipe or own_template(job)
    plan = plan_study(grid_study((template,), sizes, seeds, lengths), job.config, given=job.overrides)
    trainings = {
        cell.config.images_per_class: [cell.trial(seed) for seed in plan.seeds] for _, cell in plan.axes[template]
    }
    start = max(trainings) if start is None else start
    if start not in trainings:
        raise InputError(f"--start {start} is none of the sizes; give one of {', '.join(map(str, trainings))}")
    # Torch takes seconds to import: --help and a wrong option do not wait for it.
    from pipeline.stages.growth import GrowthRequest, propose_growth

    settings = ValidationConfig(source="real", images_per_class=validation_images, path=validation)
    request = GrowthRequest(images, start, settings, f"studies/growth-{name}", job.config)
    text, facts = propose_growth(trainings, request, job.store, lambda line: click.echo(f"grow: {line}"))
    folder = job.store.uri(request.directory)
    job.finish(f"\n{text}\ngrowth.csv, growth.yaml, growth-{name}.yaml, growth.json in {folder}", facts)


if __name__ == "__main__":
    run_job(main)
