"""WordNet 3.0 through NLTK's reader: nouns by WNID, by synset name and by word.

The data is found in this order: the folder named by SYNTHCLONES_WORDNET, NLTK's own data path, Debian's package
`wordnet-base`, the same package fetched without root. Debian leaves out `lexnames`, which NLTK opens: it is given
from here.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import nltk.data
from nltk.corpus.reader.wordnet import WordNetCorpusReader, WordNetError

from pipeline.core.datasets import cache_directory
from pipeline.core.debian import unpack_debian_packages
from pipeline.core.errors import InputError, WorkError

VERSION = "3.0"
WORDNET_VARIABLE = "SYNTHCLONES_WORDNET"
DEBIAN_PACKAGE = "wordnet-base"
DEBIAN_DIRECTORY = Path("/usr/share/wordnet")
WNID = re.compile(r"n[0-9]{8}")
SYNSET_NAME = re.compile(r"\S+\.[nvars]\.[0-9]{1,3}")
_DAMAGE = (AssertionError, EOFError, LookupError, OSError, StopIteration, ValueError)
UNREADABLE = (*_DAMAGE, WordNetError, zipfile.BadZipFile, zlib.error)
"""What NLTK raises when it reads other files, or damaged ones."""

# Lexicographer files by number, from WordNet's manual page lexnames(5WN).
_LEXNAMES = [
    (3, "adj", "all pert"),
    (4, "adv", "all"),
    (1, "noun", "Tops act animal artifact attribute body cognition communication event feeling food group location"),
    (
        1,
        "noun",
        "motive object person phenomenon plant possession process quantity relation shape state substance time",
    ),
    (2, "verb", "body change cognition communication competition consumption contact creation emotion motion"),
    (2, "verb", "perception possession social stative weather"),
    (3, "adj", "ppl"),
]


@dataclass(frozen=True)
class Noun:
    """One noun synset.

    Args:
        wnid: `n` and the 8 digits of its offset in WordNet 3.0's data.noun.
        synset: WordNet's name of the sense, e.g. `bag.n.04`.
        lemmas: all its words, in WordNet's order, spaces for underscores.
        definition: the gloss without the quoted examples.
    """

    wnid: str
    synset: str
    lemmas: list[str]
    definition: str


class _Reader(WordNetCorpusReader):  # type: ignore[misc]  # NLTK has no types
    def open(self, file: str) -> Any:
        if file == "lexnames":
            names = [f"{part}.{topic}\t{number}" for number, part, topics in _LEXNAMES for topic in topics.split()]
            return io.StringIO("".join(f"{index:02d}\t{name}\n" for index, name in enumerate(names)))
        return super().open(file)

    def map_wn(self, version: str = "wordnet") -> None:
        """No mapping to other WordNets: it would read index.sense, which neither Debian's package nor we need."""

    @cached_property
    def noun_offsets(self) -> frozenset[int]:
        """Where index.noun says that a line of data.noun begins."""
        return frozenset(offset for parts in self._lemma_pos_offset_map.values() for offset in parts.get("n", ()))

    def noun_line(self, offset: int) -> str:
        """The line of data.noun at an offset, through NLTK's own open file: in a zip, another one unpacks it anew."""
        file = self._data_file("n")
        file.seek(offset)
        return str(file.readline())

    def check_whole(self) -> None:
        """Raise `ValueError` when the last line of data.noun that index.noun names is not there."""
        last = max(self.noun_offsets, default=0)
        line = self.noun_line(last)
        if not (line.startswith(f"{last:08d} ") and line.endswith("\n")):
            raise ValueError("data.noun is cut")

    def synset_from_pos_and_offset(self, pos: str, offset: int) -> Any:
        """What NLTK finds all synsets with; it would give None for a line that is not there, and stumble over it."""
        try:
            with _quiet():
                found = super().synset_from_pos_and_offset(pos, offset)
        except UNREADABLE:
            found = None
        if found is None:
            raise InputError(
                f"WordNet in {str(self.root)!r} is damaged at {pos}{offset:08d}; mend it, or remove it and {_mend()}"
            )
        return found


class WordNet:
    """Nouns of an opened WordNet 3.0."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def by_wnid(self, wnid: str) -> Noun:
        """The noun of a WNID such as `n02774152`. Raises `InputError` when there is none."""
        if not WNID.fullmatch(wnid) or int(wnid[1:]) not in self._reader.noun_offsets:
            raise InputError(
                f"WNID {wnid!r} is no noun of WordNet {VERSION}; check its 8 digits (n02774152 is a handbag)"
            )
        return _noun(self._reader.synset_from_pos_and_offset("n", int(wnid[1:])))

    def by_synset_name(self, name: str) -> Noun:
        """The noun of a synset name such as `bag.n.04`. Raises `InputError` when there is none."""
        word, part, number = name.rsplit(".", 2)
        if part != "n":
            raise InputError(f"synset {name!r} is not a noun; classes are nouns, e.g. bag.n.04")
        try:
            if int(number) > 0:  # NLTK would count sense 00 from the end
                return _noun(self._reader.synset(name))
        except WordNetError:
            pass
        senses = len(self.senses(word))
        hint = f"; {word!r} has {senses} noun sense(s), from 01 on" if senses else self._did_you_mean(word)
        raise InputError(f"synset {name!r} is not in WordNet {VERSION}{hint}")

    def senses(self, word: str) -> list[Noun]:
        """The noun senses of a word or phrase, plural forms included, in WordNet's order; empty when it knows none."""
        return [_noun(synset) for synset in self._reader.synsets("_".join(word.split()), pos="n")]

    def by_word(self, word: str, sense: int | None = None) -> Noun:
        """The noun meant by a plain word.

        Args:
            word: a word or phrase, e.g. `tennis shoe`.
            sense: which one, counted from 1 as the error lists them; needed when there are several.

        Raises:
            InputError: unknown word, several senses and none picked, or no such sense; the message lists the choices.
        """
        senses = self.senses(word)
        if not senses:
            raise InputError(f"{word!r} is not a noun of WordNet {VERSION}{self._did_you_mean(word)}")
        if sense is None and len(senses) == 1:
            return senses[0]
        if sense is not None and 1 <= sense <= len(senses):
            return senses[sense - 1]
        listed = "; ".join(f"{n} = {s.synset} {s.wnid} ({s.definition})" for n, s in enumerate(senses, 1))
        first = senses[0]
        problem = "has several senses" if sense is None else f"has no sense {sense}"
        picks = f"number ({word}=1), synset name ({first.synset}) or WNID ({first.wnid})"
        raise InputError(f"{word!r} {problem}: {listed}. Pick by {picks}")

    def hypernyms(self, noun: Noun) -> list[Noun]:
        """The direct hypernyms (of an instance: what it is an instance of), in the order of data.noun.

        NLTK keeps pointers in a set, so their order changes from process to process; the line of the file has it.
        """
        synset = self._reader.synset(noun.synset)
        found = {h.offset(): _noun(h) for h in synset.hypernyms() or synset.instance_hypernyms()}
        columns = self._reader.noun_line(int(noun.wnid[1:])).split("|")[0].split()
        order = [int(offset) for symbol, offset in pairwise(columns) if symbol in ("@", "@i")]
        return [found[offset] for offset in order if offset in found]

    def _did_you_mean(self, word: str) -> str:
        query = "_".join(word.lower().split())
        close = difflib.get_close_matches(query, self._reader.all_lemma_names(pos="n"), n=3, cutoff=0.75)
        choices = " or ".join(repr(lemma.replace("_", " ")) for lemma in close)
        return f"; did you mean {choices}?" if close else "; try another word"


@cache
def open_wordnet() -> WordNet:
    """WordNet 3.0, read once per process (1.5 s).

    Raises:
        InputError: it is not found, is damaged or is another version.
    """
    folder = find_wordnet()
    if isinstance(folder, Path) and str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # NLTK reads nothing outside its data path
    try:
        with _quiet():
            reader = _Reader(folder if not isinstance(folder, Path) else str(folder), None)
        version = reader.get_version()
        if version == VERSION:
            reader.check_whole()
    except UNREADABLE as error:
        why = str(error) or type(error).__name__
        raise InputError(
            f"WordNet in {str(folder)!r} cannot be read: {why}; mend it, or remove it and {_mend()}"
        ) from error
    if version != VERSION:
        raise InputError(f"{str(folder)!r} holds WordNet {version}, whose WNIDs differ from {VERSION}; {_mend()}")
    return WordNet(reader)


def find_wordnet() -> Path | nltk.data.PathPointer:
    """The folder with WordNet's data.noun and index.noun (a pointer into NLTK's zip is one too), fetched if need be.

    Raises:
        InputError: no place has it; the message says what to do. A wrong SYNTHCLONES_WORDNET is never passed over, nor
            a damaged zip of NLTK's.
    """
    if chosen := os.environ.get(WORDNET_VARIABLE):
        if not _is_wordnet(Path(chosen)):
            raise InputError(f"{WORDNET_VARIABLE}={chosen!r} has no data.noun and index.noun; {_mend()}")
        return Path(chosen).absolute()
    for name in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return nltk.data.find(name)
        except LookupError:
            continue
        except zipfile.BadZipFile as error:
            zips = [str(path) for place in nltk.data.path if (path := Path(place, "corpora/wordnet.zip")).is_file()]
            raise InputError(
                f"{' or '.join(zips)} is damaged ({error}); mend it, or remove it and {_mend()}"
            ) from error
    unpacked_root = cache_directory() / "wordnet"
    unpacked = unpacked_root / DEBIAN_DIRECTORY.relative_to("/")
    for folder in (DEBIAN_DIRECTORY, unpacked):
        if _is_wordnet(folder):
            return folder
    try:
        unpack_debian_packages([DEBIAN_PACKAGE], unpacked_root)
    except WorkError as error:
        raise InputError(f"WordNet {VERSION} was not found and could not be fetched ({error}); {_mend()}") from error
    return unpacked


def _is_wordnet(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("data.noun", "index.noun"))


def _mend() -> str:
    return (
        f"install Debian's package {DEBIAN_PACKAGE}, or run `python -m nltk.downloader wordnet`, "
        f"or set {WORDNET_VARIABLE} to a folder with WordNet {VERSION}'s dict files"
    )


def _noun(synset: Any) -> Noun:
    lemmas = [name.replace("_", " ") for name in synset.lemma_names()]
    return Noun(f"n{synset.offset():08d}", synset.name(), lemmas, synset.definition())


@contextmanager
def _quiet() -> Iterator[None]:
    """NLTK warns of a missing multilingual WordNet and of an offset without a synset; both are handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
