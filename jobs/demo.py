"""The whole chain on the embedded generator: class names -> prompts -> images -> the twins -> report.

    python -m jobs.demo

Killed at any moment, the same command goes on. Run again when finished, it answers in seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli import JobContext, job_options_with, run_job


@click.command(help=__doc__)
@job_options_with("fashion_demo", "runs/demo", checks_recipe=True)
def main(job: JobContext) -> None:
    """Run what is missing of the chain and print the verdict."""
    # Torch and Ray take seconds to import: --help and a wrong option do not wait for them.
    from pipeline.core.tracking_uri import tracking_uri, ui_command
    from pipeline.stages.chain import run_chain

    summary = run_chain(job.config, job.store, say=lambda line: click.echo(f"demo: {line}"))
    ui = ui_command(tracking_uri(job.config.tracking, job.store)) if job.config.tracking.enabled else None
    job.finish(_human(summary, ui), summary)


def _human(summary: dict[str, Any], ui: str | None) -> str:
    seconds = summary["seconds"]
    lines = [
        "",
        f"{summary['images']:,} images of {summary['classes']} classes, {summary['test_images']:,} real test images",
        f"  trained on generated images  top-1 {summary['synthetic_top1']:.4f}",
        f"  trained on real images       top-1 {summary['real_top1']:.4f}   (as many, the same training)",
        f"  gap                          {summary['gap']:+.4f}",
        f"  images/s: {summary['generate_images_per_s']:.1f} generated, {summary['train_images_per_s']:.0f} trained on",
        f"  {sum(seconds.values()):.0f} s: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()),
        f"  report: {summary['report']}",
    ]
    if ui is not None:
        beside = Path(sys.executable).with_name("mlflow")
        lines.append(f"  MLflow: {ui.replace('mlflow ui', f'{beside} ui', 1)}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_job(main)
