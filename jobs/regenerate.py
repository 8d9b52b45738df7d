"""`python -m jobs.regenerate --image-id N`: make chosen images of a set again and compare them with the stored ones."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import JobContext, job_options, run_job


@click.command()
@click.option("--image-id", "image_ids", type=int, multiple=True, required=True, metavar="N", help="Repeatable.")
@job_options
def main(job: JobContext, image_ids: tuple[int, ...]) -> None:
    """Make chosen images again, in the batches they were made in, and compare them with the stored ones.

    Exit code 1 when an image has other pixels although device, threads and library versions are the same.
    """
    from pipeline.core.errors import WorkError
    from pipeline.stages.regenerate import regenerate

    found = regenerate(job.config, job.store, list(dict.fromkeys(image_ids)))
    unexplained = [each for each in found if each["is_unexplained"]]
    if unexplained:
        for each in unexplained:
            click.echo(describe(each), err=True)
        raise WorkError(
            f"{len(unexplained)} of {len(found)} images are others than the stored ones in the same environment; "
            "run `python -m jobs.verify` on the set"
        )
    job.finish("\n".join(describe(each) for each in found), {"images": found})


def describe(comparison: dict[str, Any]) -> str:
    """A comparison for people."""
    head = f"image {comparison['image_id']} in shard {comparison['shard']}: "
    if comparison["is_equal"]:
        return head + "bit-equal"
    if comparison["stored_status"] == comparison["status"] == "failed":
        return head + "failed both times"
    changes = "; ".join(f"{name}: {then} then, {now} now" for name, (then, now) in comparison["differs"].items())
    environment = changes or "the environment is the same"
    if comparison["has_equal_pixels"]:
        return f"{head}the same pixels in other bytes of the file; {environment}"
    psnr = (
        "no two pictures of one size to compare"
        if comparison["psnr_db"] is None
        else f"PSNR {comparison['psnr_db']:.1f} dB"
    )
    now = f"{comparison['stored_status']} then, {comparison['status']} now"
    return f"{head}{psnr} ({now}); {environment}"


if __name__ == "__main__":
    run_job(main)
