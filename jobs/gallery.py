"""The first images of every class of an image set, as pages that open from disk: an index to search, 50 classes a page.

Example: python -m jobs.gallery --preset fashion
"""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job


@click.command(help=__doc__)
@click.option("--num-images-per-class", "per_class", type=int, metavar="N", help="Default: 8.")
@job_options
def main(job: JobContext, per_class: int | None) -> None:
    """Write the pages and say where they are."""
    from pipeline.core.set_gallery import write_gallery

    summary = write_gallery(job.config, job.store, per_class)
    index = job.store.uri(summary["index"])
    count = f"{summary['images']:,} images of {summary['classes']:,} classes on {summary['pages']} pages"
    job.finish(f"{count}, {summary['bytes'] / 1e6:.1f} MB\nindex: {index}", {**summary, "index": index})


if __name__ == "__main__":
    run_job(main)
