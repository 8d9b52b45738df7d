"""Class table + recipe -> prompt table: one row per image that will be made.

Example: python -m jobs.build_prompts --preset fashion --images-per-class 200
"""

from __future__ import annotations

import json

import click

from pipeline.cli import JobContext, job_options_with, run_job
from pipeline.core.recipe import resolve_recipe
from pipeline.stages.prompts import first_prompts, tracked_prompt_table

NUM_SHOWN = 5
MAX_SHOWN_CHARACTERS = 160


@click.command(help=__doc__)
@job_options_with(checks_recipe=True)
def main(context: JobContext) -> None:
    """Resolve the recipe, build or extend its table, print a summary."""
    recipe = resolve_recipe(context.config)
    manifest = tracked_prompt_table(context.config, recipe, context.store)
    path = context.store.uri(recipe.prompts_dir)
    samples = first_prompts(context.store, recipe, manifest, NUM_SHOWN)
    shown = [json.dumps(prompt[:MAX_SHOWN_CHARACTERS], ensure_ascii=False) for prompt in samples]
    first_line = (
        f"prompt table {path}: {manifest['rows']} rows, {manifest['classes']} classes, "
        f"{manifest['distinct_prompts']} distinct prompts, {manifest['truncated_rows']} rows cut at CLIP's 77 tokens"
    )
    human = "\n".join([first_line, *(f"  {prompt}" for prompt in shown)])
    summary = {
        "path": path,
        "recipe_hash": recipe.hash,
        "rows": manifest["rows"],
        "classes": manifest["classes"],
        "distinct_prompts": manifest["distinct_prompts"],
        "truncated_rows": manifest["truncated_rows"],
        "first_prompts": samples,
    }
    context.finish(human, summary)


if __name__ == "__main__":
    run_job(main)
