"""`python -m jobs.check_prompts`: what a class table's prompts may mean, before images of the wrong thing are made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.clip_tokens import CONTEXT_LENGTH, clip_token_counts
from pipeline.core.prompt_check import PromptCheck, check_prompts
from pipeline.core.prompts import template_names
from pipeline.core.recipe import resolve_recipe
from pipeline.core.unread_words import some_words, unread_words
from pipeline.core.wordnet import open_wordnet

NUM_SHOWN = 5


@click.command()
@job_options
def main(context: JobContext) -> None:
    """Names with several senses and which template tells them apart, equal and cut prompts; needs WordNet."""
    recipe = context.config.recipe
    classes = load_class_table(context.config.classes)
    named = template_names()
    resolved = resolve_recipe(context.config)
    own = [source for source, _ in resolved.templates if source not in named.values()]
    templates = {**named, **{source: source for source in own}}
    check = check_prompts(classes, templates, load_backgrounds(recipe.backgrounds), recipe.styles, open_wordnet())
    unread = unread_words(recipe, resolved)
    said = f"words of this recipe that {recipe.model.id!r} has never read: {some_words(unread) or 'none known'}"
    tokens = clip_token_counts([recipe.negative_prompt])[0] if recipe.negative_prompt else 0
    summary = {"classes": len(classes), **asdict(check), "unread_words": unread, "negative_prompt_tokens": tokens}
    context.finish("\n".join([*_lines(classes, check), *_negative(tokens), said]), summary)


def _negative(tokens: int) -> list[str]:
    """The line about a negative prompt of so many tokens; none where there is no negative prompt."""
    cut = f", cut at {CONTEXT_LENGTH}" if tokens > CONTEXT_LENGTH else ""
    return [f"negative prompt: {tokens} tokens{cut}"] if tokens else []


def _lines(classes: ClassTable, check: PromptCheck) -> list[str]:
    name_of = dict(zip(classes.wnids, classes.names, strict=True))

    def some(wnids: Any) -> str:
        shown = ", ".join(name_of[wnid] for wnid in list(wnids)[:NUM_SHOWN])
        return f"{len(wnids)}" + (f" ({shown}{', …' if len(wnids) > NUM_SHOWN else ''})" if wnids else "")

    lines = [
        f"{len(classes)} classes",
        f"words that are all those of another noun too: {some(check.polysemous)}",
        f"some words that are another noun's too: {some(check.some_word)}",
        f"short names of several classes: {', '.join(check.duplicate_names) or 'none'}",
        f"without hypernym: {some(check.without_hypernym)}",
    ]
    for name, found in check.templates.items():
        equal = "; ".join(" = ".join(name_of[wnid] for wnid in group) for group in found.equal[:NUM_SHOWN])
        lines.append(
            f"{name!r}: it leaves in doubt {some(found.unresolved)}, partly {some(found.partly)}; "
            f"equal prompts: {equal or 'none'}; "
            f"longest {found.longest_tokens} tokens, cut at 77: {some(found.cut)}; cannot be made: {some(found.failed)}"
        )
    return lines


if __name__ == "__main__":
    run_job(main)
