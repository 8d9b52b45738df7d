"""Image set -> what is wrong with it, without labels: duplicates, lack of diversity, blanks, and what CLIP sees.

Example: python -m jobs.audit --preset fashion
"""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli import JobContext, job_options, run_job


@click.command(help=__doc__)
@job_options
@click.option("--twin", is_flag=True, help="Also duplicates and distances of as many real training images.")
def main(context: JobContext, twin: bool) -> None:
    """Look at the set, write the page, print its numbers."""
    from pipeline.stages.audit import audit

    manifest = audit(context.config, context.store, twin=twin)
    where = {key: context.store.uri(manifest[key]) for key in ("page", "metrics")}
    context.finish(f"{_summary(manifest)}\npage: {where['page']}", {**manifest, **where})


def _summary(manifest: dict[str, Any]) -> str:
    found = manifest["totals"]
    counts = ", ".join(f"{number:,} {status}" for status, number in found["counts"].items())
    near = f"near-duplicates: {_percent(found['near_duplicates'])} of {found['compared']:,} compared"
    distance = f"two images of a class differ in {_number(found['hash_distance'])} of 64 bits"
    lines = [f"{found['images']:,} images: {counts}", f"{near}; {distance}"]
    if real := manifest["real"]:
        lines.append(
            f"real images: {_percent(real['near_duplicates'])} of {real['compared']:,}; "
            f"{_number(real['hash_distance'])} of 64 bits"
        )
    if found["agreement"] is not None:
        lines.append(
            f"CLIP: agrees on {_percent(found['agreement'])}, score {found['score']:.3f}, not a photo "
            f"{_percent(found['non_natural'])}"
        )
    return "\n".join(
        [*lines, f"worst classes: {', '.join(manifest['worst'])}", *(f"not known: {w}" for w in manifest["missing"])]
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    run_job(main)
