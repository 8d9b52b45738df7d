"""How accuracy grows with the number of images, for several recipes: fitted laws, where they cross, what to take.

    python -m tune.scaling --preset fashion --recipe "c" --recipe "c, h_c" --size 100 --size 200 --size 400

Every recipe's images are made once, at the largest size; smaller sizes train on the beginning of the same set. It may
be stopped at any time; the same command goes on. Results: studies/scaling-NAME/ under the root.
"""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.errors import InputError
from pipeline.core.run_plan import find_cluster, load_clusters
from pipeline.core.scaling_law import MIN_SIZES
from pipeline.core.study_config import TWIN_AXIS, StudyConfig, load_study
from pipeline.core.study_plan import plan_study
from pipeline.core.study_report import outline_text


def grid_study(
    recipes: tuple[str, ...], sizes: tuple[int, ...], seeds: int, lengths: str | None, twins: bool = True
) -> StudyConfig:
    """An axis per recipe, with a setting per size, and one of real images. Raises `InputError`.

    Args:
        recipes: templates.
        sizes: images per class.
        seeds: how many.
        lengths: name or file of a study, all of whose settings but seeds and axes are taken; its twins only with
            `twins`.
        twins: train on real images too.
    """
    if len(set(sizes)) < MIN_SIZES:
        raise InputError(f"give at least {MIN_SIZES} different --size N (images per class), not {len(set(sizes))}")
    settings = {recipe: {f"{size}": [f"images_per_class={size}"] for size in sorted(set(sizes))} for recipe in recipes}
    if TWIN_AXIS in recipes:
        raise InputError(f"--recipe {TWIN_AXIS!r} is the name of the twins' curve, which comes by itself; leave it out")
    axes = {
        recipe: {label: [f"recipe.template={recipe}", *words] for label, words in labels.items()}
        for recipe, labels in settings.items()
    }
    if lengths is None:
        return StudyConfig(seeds=list(range(seeds)), twins=twins, axes=axes)
    taken = load_study(lengths)
    own = {"seeds": list(range(seeds)), "twins": twins and taken.twins, "axes": axes, "paper": {}}
    return taken.model_copy(update=own)


@click.command(help=__doc__)
@job_options_with(plans=True)
@click.option("--recipe", "recipes", multiple=True, metavar="TEMPLATE", help="Repeatable; default: that of the preset.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Images per class; repeatable, 3 or more. Default: 1, 2, 4 and 8 times those of the preset.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each cell.")
@click.option("--twins/--no-twins", default=True, show_default=True, help="Train on as many real images too.")
@click.option(
    "--lengths",
    metavar="STUDY",
    help="A study whose trainings and twins are meant: its base, lengths, twin_sizes, needs_real_data.",
)
@click.option("--cluster", metavar="NAME", help="Whose price an image has, from the cluster file; default: none.")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="Trainings at a time; default: as CPUs allow.")
@click.option("--name", default="default", show_default=True, metavar="NAME", help="Of the results' folder.")
def main(
    job: JobContext,
    recipes: tuple[str, ...],
    sizes: tuple[int, ...],
    seeds: int,
    twins: bool,
    lengths: str | None,
    cluster: str | None,
    slots: int | None,
    name: str,
) -> None:
    """Run what is missing of the grid, fit, and print the advice."""
    if not name.replace("-", "").replace("_", "").isalnum():
        raise InputError(f"--name {name!r} becomes a folder: use letters, digits, - and _")
    if cluster is not None:
        find_cluster(load_clusters(), cluster)  # a typo is found before hours of work
    chosen = recipes or (own_template(job),)
    size = job.config.images_per_class
    study = grid_study(chosen, sizes or (size, 2 * size, 4 * size, 8 * size), seeds, lengths, twins)
    plan = plan_study(study, job.config, given=job.overrides)
    # Torch and Ray take seconds to import: --help and a wrong option do not wait for them.
    from pipeline.stages.scaling import fit_study
    from pipeline.stages.study import Study

    found = Study(plan, plan, job.store, f"scaling-{name}")
    found.look_at_data(lambda line: click.echo(f"scaling: {line}"), must_be_there=not job.dry_run)
    outline = found.outline()
    click.echo(f"scaling: {outline_text(outline)}")
    if job.dry_run:
        job.finish("\n".join(f"  {cell.name}: {cell.config.train.epochs} epochs" for cell in plan.cells), outline)
        return
    found.run(say=lambda line: click.echo(f"scaling: {line}"), slots=slots)
    text, facts = fit_study(found, cluster)
    folder = job.store.uri(found.directory)
    summary: dict[str, Any] = {**outline, "directory": folder, **facts}
    job.finish(f"\n{text}\nscaling.md, scaling.json, scaling.png, table.md and table.csv in {folder}", summary)


def own_template(job: JobContext) -> str:
    """The preset's one template. Raises `InputError` when it mixes several."""
    template = job.config.recipe.template
    if not isinstance(template, str):
        raise InputError("the preset mixes templates; give --recipe TEMPLATE")
    return template


if __name__ == "__main__":
    run_job(main)
