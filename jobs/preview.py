"""`python -m jobs.preview`: a few images per class at the real settings, on one HTML page, to look before paying."""

from __future__ import annotations

import os
import sys

import click

from pipeline.cli import JobContext, job_options_with, run_job


@click.command()
@click.option("--num-classes", type=int, metavar="K", help="Classes, spread over the table. Default: all, at most 20.")
@click.option("--num-images-per-class", "per_class", type=int, metavar="N", help="Default: 4.")
@click.option("--open-nothing", is_flag=True, help="Do not show the page in a browser (done in a desktop's terminal).")
@job_options_with(checks_recipe=True)
def main(job: JobContext, num_classes: int | None, per_class: int | None, open_nothing: bool) -> None:
    """Make a few images of the set on one worker like the pool's and write a page of them. Publishes no shard."""
    from pipeline.stages.preview import preview

    summary = preview(job.config, job.store, num_classes, per_class)
    page = job.store.uri(summary["path"])
    counts = ", ".join(f"{count} {status}" for status, count in summary["counts"].items())
    speed = summary["seconds_per_image"]
    rate = "" if speed is None else f"; {speed:.3g} s per image on one actor, which loads in {summary['load_s']:.0f} s"
    job.finish(
        f"{sum(summary['counts'].values())} images ({counts}){rate}\n{summary['estimate']}\npage: {page}", summary
    )
    if job.store.is_local and not open_nothing and sys.stdout.isatty() and has_desktop():
        click.launch(page)


def has_desktop() -> bool:
    """Whether a browser with windows can be started here; one in the terminal would only be in the way."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


if __name__ == "__main__":
    run_job(main)
