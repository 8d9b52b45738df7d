"""From a user's list of WNIDs, synset names and plain words to a class table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core.classes import ClassTable
from pipeline.core.errors import InputError
from pipeline.core.wordnet import SYNSET_NAME, WNID, Noun, WordNet

MAX_PROBLEMS = 20
"""The search for words near an unknown one takes a third of a second."""


def read_class_list(path: Path) -> list[str]:
    """The entries of a text file: one per line, without empty lines and `#` comments. Raises `InputError`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"--from {str(path)!r} does not exist; check the path") from None
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"--from {str(path)!r} cannot be read as UTF-8 text: {error}") from error
    stripped = (line.strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("#")]


def build_class_table(wordnet: WordNet, entries: Sequence[str], source: str) -> ClassTable:
    """A class table with one class per entry, in their order.

    Args:
        wordnet: where they are looked up.
        entries: each a WNID (`n02774152`), a synset name (`bag.n.04`), a plain word (`sandal`), or `NAME=PICK` where
            PICK is a WNID, a synset name or the number of one of NAME's senses; NAME is then the class's short name.
        source: where the list comes from.

    Raises:
        InputError: no entry, or any that is unknown, ambiguous or given twice; the message names all of them, up to the
            20th.
    """
    if not entries:
        raise InputError("no classes given; name them with --class or list them in a file for --from")
    problems: list[str] = []
    first_use: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        if len(problems) == MAX_PROBLEMS:
            problems.append(f"… and {len(entries) - number} entries more, not looked at")
            break
        try:
            name, noun = resolve_entry(wordnet, entry)
        except InputError as error:
            problems.append(str(error))
            continue
        if noun.wnid in first_use:
            other = first_use[noun.wnid]
            problems.append(f"{entry!r} is {noun.wnid} ({noun.synset}), as {other!r} is; list every class once")
            continue
        first_use[noun.wnid] = entry
        rows.append(class_row(wordnet, len(rows), name, noun))
    if problems:
        raise InputError(" | ".join(problems))
    return ClassTable(rows, source)


def resolve_entry(wordnet: WordNet, entry: str) -> tuple[str, Noun]:
    """(short name, noun) of one entry of a list. Raises `InputError`."""
    try:
        entry.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no UTF-8
        raise InputError(f"class {entry!r} is not UTF-8 text; mend its encoding") from None
    name, separator, pick = (part.strip() for part in entry.rpartition("="))
    if separator and not name:
        raise InputError(f"{entry!r} has no name before `=`; write e.g. bag=4 or T-shirt=jersey.n.03")
    if separator and re.fullmatch("[0-9]{1,3}", pick):
        return name, wordnet.by_word(name, int(pick))
    if WNID.fullmatch(pick):
        noun = wordnet.by_wnid(pick)
    elif SYNSET_NAME.fullmatch(pick):
        noun = wordnet.by_synset_name(pick)
    elif separator:
        raise InputError(f"{entry!r}: {pick!r} is no sense number, synset name (bag.n.04) or WNID (n02774152)")
    elif described := re.match(rf"({WNID.pattern})[\s,;:]", pick):  # as in ImageNet's own lists
        wnid = described[1]
        raise InputError(f"{entry!r} has words behind the WNID; write only {wnid}, or NAME={wnid}")
    else:
        return pick, wordnet.by_word(pick)
    return name or noun.lemmas[0], noun


def class_row(wordnet: WordNet, class_index: int, name: str, noun: Noun) -> dict[str, Any]:
    """The row of a class table (`CLASS_SCHEMA`) for a noun."""
    parents = wordnet.hypernyms(noun)
    return {
        "class_index": class_index,
        "class_name": name,
        "wnid": noun.wnid,
        "synset": noun.synset,
        "lemmas": noun.lemmas,
        "definition": noun.definition,
        "hypernym_wnids": [parent.wnid for parent in parents],
        "hypernym_lemmas": [parent.lemmas for parent in parents],
    }
