"""What prompts may mean: names with several senses and which template tells them apart, cut and equal prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.class_building import class_row
from pipeline.core.classes import ClassTable
from pipeline.core.clip_tokens import CONTEXT_LENGTH, clip_token_counts
from pipeline.core.errors import InputError
from pipeline.core.prompts import Drawn, render
from pipeline.core.wordnet import WordNet


@dataclass(frozen=True)
class TemplateCheck:
    """One template over all classes.

    Args:
        unresolved: WNID of a class -> synset names of the other senses that its prompt means just as well.
        equal: groups of WNIDs whose prompts are the same text.
        cut: WNIDs whose longest prompt has more than CLIP's 77 tokens.
        longest_tokens: of all prompts, end marks included.
        failed: WNID -> why the template cannot make its prompt, e.g. no hypernym.
    """

    unresolved: dict[str, list[str]]
    equal: list[list[str]]
    cut: list[str]
    longest_tokens: int
    failed: dict[str, str]


@dataclass(frozen=True)
class PromptCheck:
    """A class table and templates.

    Args:
        polysemous: WNID of a class -> synset names of the other noun senses that have all of its words.
        duplicate_names: short name -> WNIDs of the classes that share it.
        without_hypernym: WNIDs.
        templates: template name -> its check.
    """

    polysemous: dict[str, list[str]]
    duplicate_names: dict[str, list[str]]
    without_hypernym: list[str]
    templates: dict[str, TemplateCheck]


def check_prompts(
    classes: ClassTable, templates: Mapping[str, str], backgrounds: Sequence[str], styles: Sequence[str], words: WordNet
) -> PromptCheck:
    """Check templates over a class table.

    Args:
        classes: the labels.
        templates: name -> Jinja source.
        backgrounds: scenes; the longest stands for all.
        styles: likewise.
        words: where other senses of the classes' words are looked up.
    """
    others = {row["wnid"]: other_senses(row, words) for row in classes.rows}
    names: defaultdict[str, list[str]] = defaultdict(list)
    for row in classes.rows:
        names[row["class_name"]].append(row["wnid"])
    drawn = Drawn(background=max(backgrounds, key=len, default=""), style=max(styles, key=len, default="photo"))
    return PromptCheck(
        polysemous={wnid: [row["synset"] for row in rows] for wnid, rows in others.items() if rows},
        duplicate_names={name: wnids for name, wnids in names.items() if len(wnids) > 1},
        without_hypernym=[row["wnid"] for row in classes.rows if not row["hypernym_lemmas"]],
        templates={name: check_template(classes, source, drawn, others) for name, source in templates.items()},
    )


def other_senses(row: Mapping[str, Any], words: WordNet) -> list[dict[str, Any]]:
    """Rows of the noun senses, other than a class's own, that have every word of the class."""
    own = {lemma.lower() for lemma in row["lemmas"]}
    found = {sense.wnid: sense for sense in words.senses(row["lemmas"][0]) if sense.wnid != row["wnid"]}
    fitting = [sense for sense in found.values() if own <= {lemma.lower() for lemma in sense.lemmas}]
    return [class_row(words, 0, sense.lemmas[0], sense) for sense in fitting]


def check_template(
    classes: ClassTable, source: str, drawn: Drawn, others: Mapping[str, Sequence[Mapping[str, Any]]]
) -> TemplateCheck:
    """Check one template; `others` as `other_senses` gives them, by WNID.

    Another sense is told apart when the template writes another text for it in the class's own words.
    """
    prompts: dict[str, str] = {}
    failed: dict[str, str] = {}
    unresolved: dict[str, list[str]] = {}
    for row in classes.rows:
        try:
            prompts[row["wnid"]] = render(source, row, drawn)
        except InputError as error:
            failed[row["wnid"]] = str(error)
            continue
        same = [
            other["synset"]
            for other in others[row["wnid"]]
            if _text(source, {**other, "lemmas": row["lemmas"]}, drawn) == prompts[row["wnid"]]
        ]
        if same:
            unresolved[row["wnid"]] = same
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for wnid, prompt in prompts.items():
        texts[prompt].append(wnid)
    counts = dict(zip(prompts, clip_token_counts(list(prompts.values())), strict=True))
    return TemplateCheck(
        unresolved=unresolved,
        equal=[wnids for wnids in texts.values() if len(wnids) > 1],
        cut=[wnid for wnid, count in counts.items() if count > CONTEXT_LENGTH],
        longest_tokens=max(counts.values(), default=0),
        failed=failed,
    )


def _text(source: str, row: Mapping[str, Any], drawn: Drawn) -> str | None:
    """The prompt, None when the template cannot make one for this sense."""
    try:
        return render(source, row, drawn)
    except InputError:
        return None
