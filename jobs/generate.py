"""`python -m jobs.generate`: prompts -> image shards. Run again: it goes on. More images per class: it extends.

With `--per-class FILE` it makes extra images of some classes beside a finished set, and nothing else.
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.errors import InputError


@click.command()
@click.option("--retry-failed", is_flag=True, help="Make the shards again that hold failed images.")
@click.option("--shards", metavar="FIRST:STOP", help="Make this part of the set; other jobs make the others.")
@click.option("--per-class", metavar="FILE", help="Only extra images, as many of each class as this table says.")
@job_options_with(checks_recipe=True, shortcuts={"--max-failed-rows": "generate.max_failed_rows"})
def main(job: JobContext, retry_failed: bool, shards: str | None, per_class: str | None) -> None:
    """Make the images of a recipe that are not there yet."""
    if per_class is not None:
        if shards is not None:
            raise InputError("--shards names a part of the uniform set, and --per-class makes others; give one of them")
        make_extras(job, per_class, retry_failed)
        return
    from pipeline.stages.generate import generate

    summary = generate(job.config, job.store, retry_failed=retry_failed, shards=shards)
    missing = summary.get("missing_shards")
    last_line = (
        f"{missing} shards of other parts are not there yet; the job that makes the last one writes the set's manifest"
        if missing
        else f"set sha256 {summary['set_sha256']}"
    )
    counts = ", ".join(f"{count} {status}" for status, count in summary["counts"].items())
    job.finish(
        f"{summary['rows']} images in {job.store.uri(summary['images_dir'])} ({counts}); "
        f"{summary['images_made']} made now, {summary['images_per_s']:.1f} images/s\n"
        f"{last_line}",
        {key: value for key, value in summary.items() if key != "recipe"},
    )


def make_extras(job: JobContext, per_class: str, retry_failed: bool) -> None:
    """Make the extra images that a file asks for. Raises `InputError` before anything is written."""
    from pipeline.core.classes import load_class_table
    from pipeline.core.extra_counts import read_extra_images

    extra = read_extra_images(per_class, load_class_table(job.config.classes))
    from pipeline.stages.extra_images import generate_extras

    summary = generate_extras(job.config, job.store, extra, retry_failed=retry_failed)
    counts = ", ".join(f"{count} {status}" for status, count in summary["counts"].items())
    job.finish(
        f"{summary['rows']} extra images of {len(summary['per_class'])} classes in "
        f"{job.store.uri(summary['images_dir'])}/extra ({counts}); {summary['images_made']} made now, "
        f"{summary['images_per_s']:.1f} images/s\nextra sha256 {summary['set_sha256']}",
        summary,
    )


if __name__ == "__main__":
    run_job(main)
