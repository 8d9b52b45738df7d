"""Prompt templates: Jinja over the pieces of a class, in a sandbox.

Class words and scenes are values and never become template source. The same row always gives the same text: nothing
random and no globals are within a template's reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.sandbox import SandboxedEnvironment

from pipeline.core.config_loading import PRESETS, load_yaml, nearest
from pipeline.core.errors import InputError

VARIABLES = {
    "c": "the class's words",
    "c_first": "the first of them",
    "c_random": "one of them, drawn per image",
    "h_c": "its first hypernym's words",
    "h_c_all": "all its hypernyms' words",
    "h_c_random": "the words of one of its hypernyms, drawn per image",
    "d_c": "its definition",
    "b": "a background scene, drawn per image",
    "style": "a style or domain, drawn per image",
}
"""What a template may use. The drawn ones are drawn by a hash of the image, never by the template."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for an image's prompt; where the template uses none of it, the first of each.

    Args:
        lemma: index of the class's word, any number >= 0: it is taken modulo their number.
        hypernym: index of the hypernym, likewise.
        background: scene name, None when the template has none.
        style: None when the template has none.
    """

    lemma: int = 0
    hypernym: int = 0
    background: str | None = None
    style: str | None = None


def _only_text(value: Any) -> Any:
    """Keep a template from printing an object, whose text may hold an address that differs in every process."""
    if not isinstance(value, str | int | float | StrictUndefined):  # Jinja itself reports the undefined one
        raise TypeError(f"it prints a {type(value).__name__}, not text")
    return value


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_only_text)
    environment.globals.clear()
    del environment.filters["random"]
    return environment


ENVIRONMENT = _environment()
MAX_CHARACTERS = 10_000
"""Of a prompt: many times what any text encoder reads (77 tokens of CLIP, 512 of T5)."""
_OF_VALUES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
_FAILURES = (TemplateError, *_OF_VALUES, RecursionError, MemoryError)


def _called(source: str) -> str:
    """A template in an error's line, whatever its length."""
    return f"recipe.template {source!r:.200}"


def template_names() -> dict[str, str]:
    """The named templates of presets/prompts.yaml: name -> Jinja source."""
    return {name: str(source) for name, source in load_yaml(PRESETS / "prompts.yaml").items()}


def resolve_template(name_or_source: str) -> str:
    """The Jinja source of a named template, or of one written out.

    Raises:
        InputError: neither a name nor a template, a syntax error, an unknown variable, or a template that fails on a
            simple class or draws no text.
    """
    named = template_names()
    source = named.get(name_or_source, name_or_source)
    if source not in named.values() and "{{" not in source and "{%" not in source:
        hint = nearest(source, named)
        raise InputError(f"{_called(source)} is unknown{hint}, or write one, e.g. 'a photo of {{{{ c }}}}'")
    unknown = sorted(_variables(source) - VARIABLES.keys())
    if unknown:
        allowed = ", ".join(f"{name} ({meaning})" for name, meaning in VARIABLES.items())
        raise InputError(f"{_called(source)} uses the unknown variable {unknown[0]!r}; there are {allowed}")
    _render(source, dict.fromkeys(VARIABLES, "x"))
    return source


def template_uses(source: str, variable: str) -> bool:
    """Whether a template reads a variable. Raises `InputError` on a syntax error."""
    return variable in _variables(source)


def render(source: str, class_row: Mapping[str, Any], drawn: Drawn) -> str:
    """The prompt of one image.

    Args:
        source: Jinja source from `resolve_template`.
        class_row: row of a class table.
        drawn: what is drawn per image.

    Raises:
        InputError: the template needs a hypernym and the class has none, or it fails on this class.
    """
    lemmas, hypernyms = class_row["lemmas"], class_row["hypernym_lemmas"]
    values = {"c": ", ".join(lemmas), "c_first": lemmas[0], "c_random": lemmas[drawn.lemma % len(lemmas)]}
    values["d_c"] = class_row["definition"]
    if hypernyms:
        values["h_c"] = ", ".join(hypernyms[0])
        values["h_c_all"] = ", ".join(dict.fromkeys(word for words in hypernyms for word in words))
        values["h_c_random"] = ", ".join(hypernyms[drawn.hypernym % len(hypernyms)])
    if drawn.background is not None:
        values["b"] = drawn.background
    if drawn.style is not None:
        values["style"] = drawn.style
    return _render(source, values, f" of class {class_row['wnid']} ({class_row['synset']})")


def _reason(error: Exception, values: Mapping[str, str]) -> str:
    """Why a template failed, and how to mend it."""
    if isinstance(error, UndefinedError) and "h_c" not in values and str(error).startswith("'h_c"):
        return "the class has no hypernym; write e.g. {{ c }}{% if h_c is defined %}, {{ h_c }}{% endif %}"
    if isinstance(error, RecursionError):
        return "it calls itself without end; mend it"
    if isinstance(error, MemoryError):
        return "it makes text without end; mend it"
    if isinstance(error, UnicodeEncodeError):
        return "it prints half of a character (a surrogate), which is no text; mend it"
    return f"{error}; mend it"


def _render(source: str, values: Mapping[str, str], where: str = "") -> str:
    try:
        text = _compile(source).render(values)
        text.encode()  # half of a character can be written in Jinja, and no tokenizer or file takes it
    except _FAILURES as error:
        raise InputError(f"{_called(source)} cannot make the prompt{where}: {_reason(error, values)}") from error
    if not text.strip():
        raise InputError(f"{_called(source)} makes an empty prompt{where}; let it print e.g. {{{{ c }}}}")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{_called(source)} makes a prompt of {len(text):,} characters{where}, the limit is "
            f"{MAX_CHARACTERS:,} and text encoders read far fewer; shorten it"
        )
    return text


@cache
def _compile(source: str) -> Template:
    return ENVIRONMENT.from_string(source)


@cache
def _variables(source: str) -> frozenset[str]:
    try:
        source.encode()  # bytes of the command line that are no UTF-8
        _compile(source)  # unknown filters and tests show only here
        return frozenset(meta.find_undeclared_variables(ENVIRONMENT.parse(source)))
    except TemplateSyntaxError as error:
        raise InputError(f"{_called(source)} is not a Jinja template: {error.message}; mend it") from error
    except UnicodeEncodeError:
        raise InputError(f"{_called(source)} is not UTF-8 text; mend its encoding") from None
    except _FAILURES as error:  # Jinja computes what stands between numbers
        raise InputError(f"{_called(source)} cannot be read: {_reason(error, {})}") from error
