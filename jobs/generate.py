"""`python -m jobs.generate`: prompts -> image shards. Run again: it goes on. More images per class: it extends."""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options_with, run_job


@click.command()
@click.option("--retry-failed", is_flag=True, help="Make the shards again that hold failed images.")
@click.option("--shards", metavar="FIRST:STOP", help="Make this part of the set; other jobs make the others.")
@job_options_with(shortcuts={"--max-failed-rows": "generate.max_failed_rows"})
def main(job: JobContext, retry_failed: bool, shards: str | None) -> None:
    """Make the images of a recipe that are not there yet."""
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


if __name__ == "__main__":
    run_job(main)
