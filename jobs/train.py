"""Train the classifier on an image set, or its twin on real images: images/ -> models/."""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job


@click.command()
@job_options
def main(context: JobContext) -> None:
    """Train the classifier of a preset. Run again after an interruption: it goes on from the last checkpoint."""
    from pipeline.stages.train import train  # torch and Ray take seconds to import: not for --help or a mistyped key

    summary = train(context.config, context.store)
    state = "was finished already" if summary["existing"] else "is trained"
    context.finish(
        f"model {summary['model']} {state}: {summary['num_images']} images, {summary['epochs']} epochs, "
        f"training accuracy {summary['accuracy']:.3f}, {summary['images_per_s']:.0f} images/s, "
        f"{summary['seconds']:.0f} s; in {context.store.uri(summary['model_dir'])}",
        summary,
    )


if __name__ == "__main__":
    run_job(main)
