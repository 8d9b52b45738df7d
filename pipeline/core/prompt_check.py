"""What prompts may mean: names with several senses and which template tells them apart, cut and equal prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pipeline.core.class_building import class_row
from pipeline.core.classes import ClassTable
from pipeline.core.clip_tokens import CONTEXT_LENGTH, clip_read_tokens, clip_token_counts
from pipeline.core.errors import InputError
from pipeline.core.prompts import Drawn, render, template_uses
from pipeline.core.wordnet import WordNet


@dataclass(frozen=True)
class TemplateCheck:
    """One template over all classes, over whatever is drawn for an image.

    Args:
        unresolved: WNID of a class -> synset names of the other senses that have all the words of one of its prompts,
            and that the rest of the prompt does not tell apart.
        partly: likewise of senses that have some of the words, e.g. the metal for `iron, smoothing iron`.
        equal: groups of WNIDs that may get the same prompt, as CLIP reads it: no capitals, no more than 77 tokens.
        cut: WNIDs whose longest prompt has more than CLIP's 77 tokens.
        longest_tokens: of all prompts, end marks included.
        failed: WNID -> why the template cannot make its prompt, e.g. no hypernym.
    """

    unresolved: dict[str, list[str]]
    partly: dict[str, list[str]]
    equal: list[list[str]]
    cut: list[str]
    longest_tokens: int
    failed: dict[str, str]


@dataclass(frozen=True)
class PromptCheck:
    """A class table and templates.

    Args:
        polysemous: WNID of a class -> synset names of the other noun senses that have all of its words.
        some_word: WNID of a class -> those that have some of its words, but not all.
        duplicate_names: short name -> WNIDs of the classes that share it.
        without_hypernym: WNIDs.
        templates: template name -> its check.
    """

    polysemous: dict[str, list[str]]
    some_word: dict[str, list[str]]
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
        backgrounds: scenes; the one of most tokens stands for all.
        styles: likewise.
        words: where other senses of the classes' words are looked up.
    """
    others = {row["wnid"]: other_senses(row, words) for row in classes.rows}
    names: defaultdict[str, list[str]] = defaultdict(list)
    for row in classes.rows:
        names[row["class_name"]].append(row["wnid"])
    drawn = Drawn(background=_longest(backgrounds, ""), style=_longest(styles, "photo"))

    def of_words(row: Mapping[str, Any], *, every: bool) -> list[str]:
        return [sense["synset"] for sense in others[row["wnid"]] if (_lower(row) <= _lower(sense)) == every]

    return PromptCheck(
        polysemous={row["wnid"]: found for row in classes.rows if (found := of_words(row, every=True))},
        some_word={row["wnid"]: found for row in classes.rows if (found := of_words(row, every=False))},
        duplicate_names={name: wnids for name, wnids in names.items() if len(wnids) > 1},
        without_hypernym=[row["wnid"] for row in classes.rows if not row["hypernym_lemmas"]],
        templates={name: check_template(classes, source, drawn, others) for name, source in templates.items()},
    )


def other_senses(row: Mapping[str, Any], words: WordNet) -> list[dict[str, Any]]:
    """Rows of the noun senses, other than a class's own, that have at least one word of the class."""
    own = _lower(row)
    senses = (sense for lemma in row["lemmas"] for sense in words.senses(lemma))
    found = {sense.wnid: sense for sense in senses if sense.wnid != row["wnid"]}
    fitting = [sense for sense in found.values() if own & {lemma.lower() for lemma in sense.lemmas}]
    return [class_row(words, 0, sense.lemmas[0], sense) for sense in fitting]


def check_template(
    classes: ClassTable, source: str, drawn: Drawn, others: Mapping[str, Sequence[Mapping[str, Any]]]
) -> TemplateCheck:
    """Check one template; `others` as `other_senses` gives them, by WNID.

    Another sense is told apart when the template writes another text for it in the class's own words.
    """
    prompts: dict[str, list[str]] = {}
    failed: dict[str, str] = {}
    counts: dict[str, int] = {}
    unresolved: dict[str, list[str]] = {}
    partly: dict[str, list[str]] = {}
    for row in classes.rows:
        wnid = row["wnid"]
        try:
            prompts[wnid] = [render(source, row, one) for one in _draws(source, row, drawn)]
            counts[wnid] = max(clip_token_counts(prompts[wnid]))
        except InputError as error:
            failed[wnid] = str(error)
            prompts.pop(wnid, None)
            continue
        groups = _words_written(source, row)
        for other in others[wnid]:
            if _text(source, {**other, "lemmas": row["lemmas"]}, drawn) != prompts[wnid][0]:
                continue
            if any(words <= _lower(other) for words in groups):
                unresolved.setdefault(wnid, []).append(other["synset"])
            elif any(words & _lower(other) for words in groups):
                partly.setdefault(wnid, []).append(other["synset"])
    pairs = [(wnid, prompt) for wnid, found in prompts.items() for prompt in dict.fromkeys(found)]
    read: defaultdict[tuple[int, ...], dict[str, None]] = defaultdict(dict)
    for (wnid, _), tokens in zip(pairs, clip_read_tokens([prompt for _, prompt in pairs]), strict=True):
        read[tokens][wnid] = None
    return TemplateCheck(
        unresolved=unresolved,
        partly=partly,
        equal=[list(wnids) for wnids in dict.fromkeys(tuple(found) for found in read.values()) if len(wnids) > 1],
        cut=[wnid for wnid, count in counts.items() if count > CONTEXT_LENGTH],
        longest_tokens=max(counts.values(), default=0),
        failed=failed,
    )


def _words_written(source: str, row: Mapping[str, Any]) -> list[set[str]]:
    """The class's words that stand in a prompt together, lower case: one set, or one for each that may be drawn."""
    if template_uses(source, "c"):
        return [_lower(row)]
    first = {row["lemmas"][0].lower()} if template_uses(source, "c_first") else set()
    if template_uses(source, "c_random"):
        return [first | {lemma.lower()} for lemma in row["lemmas"]]
    return [first] if first else []


def _draws(source: str, row: Mapping[str, Any], drawn: Drawn) -> list[Drawn]:
    """Every draw of words that the template may make for a class."""
    lemmas = len(row["lemmas"]) if template_uses(source, "c_random") else 1
    hypernyms = len(row["hypernym_lemmas"]) if template_uses(source, "h_c_random") else 1
    pairs = product(range(lemmas), range(max(1, hypernyms)))
    return [replace(drawn, lemma=lemma, hypernym=hypernym) for lemma, hypernym in pairs]


def _longest(texts: Sequence[str], default: str) -> str:
    """The text of most tokens."""
    counted = zip(clip_token_counts(texts), texts, strict=True)
    return max(counted, default=(0, default))[1]


def _lower(row: Mapping[str, Any]) -> set[str]:
    return {lemma.lower() for lemma in row["lemmas"]}


def _text(source: str, row: Mapping[str, Any], drawn: Drawn) -> str | None:
    """The prompt, None when the template cannot make one for this sense."""
    try:
        return render(source, row, drawn)
    except InputError:
        return None
