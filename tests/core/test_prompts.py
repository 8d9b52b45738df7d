"""Templates: what they may use, and that class text never becomes one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.classes import load_class_table
from pipeline.core.errors import InputError
from pipeline.core.prompts import Drawn, render, resolve_template, template_names, template_uses

PAPILLON = "n02086910"
texts = st.text(min_size=1, max_size=2_000).filter(str.strip)
hostile = st.sampled_from(
    [
        "../../etc/passwd",
        "a\"b'c",
        "line\nbreak\r\n",
        "{{ b }}",
        "{% raw %}",
        "{# #}",
        "x" * 2_000,
        "🦩🏳️‍🌈",
        "nul\0",
        "<b>&amp;",
    ]
)


def row(wnid: str) -> dict[str, Any]:
    return next(row for row in load_class_table("imagenet1k").rows if row["wnid"] == wnid)


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("c", "papillon"),
        ("c, h_c", "papillon, toy spaniel"),
        ("c, d_c", "papillon, small slender toy spaniel with erect ears and a black-spotted brown to white coat"),
        ("c, h_c inside b", "papillon, toy spaniel inside bow window indoor"),
    ],
)
def test_the_four_recipes_of_the_paper(name: str, prompt: str) -> None:
    assert render(resolve_template(name), row(PAPILLON), Drawn(background="bow window indoor")) == prompt


def test_c_and_h_c_are_all_words_of_a_synset() -> None:
    handbag = load_class_table("fashion_mnist").rows[8]
    assert render(resolve_template("c, h_c"), handbag, Drawn()) == "bag, handbag, pocketbook, purse, container"


def test_h_c_is_the_first_of_several_hypernyms() -> None:
    baseball = row("n02799071")
    assert len(baseball["hypernym_lemmas"]) == 2
    assert render("{{ h_c }}", baseball, Drawn()) == "ball"


def test_every_named_template_is_a_template_of_its_own() -> None:
    assert {name: resolve_template(name) for name in template_names()} == template_names()


def test_a_template_may_be_written_out() -> None:
    source = "a photo of {{ c|upper }}{% if b %} in {{ b }}{% endif %}"
    prompt = render(resolve_template(source), row(PAPILLON), Drawn(background="kitchen"))
    assert prompt == "a photo of PAPILLON in kitchen"


@pytest.mark.parametrize(
    ("source", "variable", "expected"), [("{{ c }}", "b", False), ("{% if b %}x{% endif %}", "b", True)]
)
def test_use_of_a_variable_is_seen(source: str, variable: str, expected: bool) -> None:
    assert template_uses(source, variable) is expected


def test_only_the_template_with_backgrounds_uses_them() -> None:
    assert [name for name, source in template_names().items() if template_uses(source, "b")] == ["c, h_c inside b"]


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("c, d", ["'c, d' is unknown", "did you mean 'c"]),
        ("photo", ["'photo' is unknown", "'a photo of {{ c }}'"]),
        ("", ["is unknown"]),
        ("{{ name }}", ["unknown variable 'name'", "c (", "h_c (", "d_c (", "b ("]),
        ("{{ lipsum() }}", ["unknown variable 'lipsum'"]),
        ("{{ range(9) }}", ["unknown variable 'range'"]),
        ("{{ c", ["not a Jinja template"]),
        ("{% for x in c %}", ["not a Jinja template"]),
        ("{{ c|nosuchfilter }}", ["not a Jinja template", "nosuchfilter"]),
        ("{{ c|random }}", ["not a Jinja template", "random"]),
        ("{% include 'x' %}{{ c }}", ["cannot make the prompt"]),
        ("{{ c.__class__.__mro__ }}", ["cannot make the prompt"]),
        ("{{ c.upper }}", ["cannot make the prompt", "not text"]),
        ("{{ [c] }}", ["cannot make the prompt", "not text"]),
        ("{{ c / 2 }}", ["cannot make the prompt"]),
        ("{{ 1 / 0 }}{{ c }}", ["cannot make the prompt"]),
        ("{{ c }}{{ 9**99999 }}", ["cannot be read", "4300 digits"]),
        ("{{ c[5:] }}", ["empty prompt"]),
        ("{{ c * 20000 }}", ["20,000 characters", "10,000", "shorten"]),
        ("{% if false %}{{ c }}{% endif %}", ["empty prompt"]),
        ("\udcff{{ c }}", ["not UTF-8"]),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{{ c }}", ["cannot make the prompt", "calls itself"]),
        ('{{ c }}{{ "\\ud800" }}', ["cannot make the prompt", "half of a character"]),
    ],
)
def test_a_wrong_template_is_an_error(template: str, parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        resolve_template(template)
    for part in parts:
        assert part in str(caught.value)


def test_an_error_shows_the_beginning_of_a_long_template() -> None:
    with pytest.raises(InputError, match="10,001 characters") as caught:
        resolve_template("{{ c }}" + "y" * 10_000)
    assert "{{ c }}yyy" in str(caught.value) and len(str(caught.value)) < 500


def test_a_class_without_a_hypernym_is_named() -> None:
    entity = {**row(PAPILLON), "wnid": "n00001740", "synset": "entity.n.01", "hypernym_lemmas": []}
    with pytest.raises(
        InputError,
        match=r"of class n00001740 \(entity.n.01\): the class has no hypernym; write e.g. .*if h_c is defined %",
    ):
        render(resolve_template("c, h_c"), entity, Drawn())


def test_a_class_without_a_hypernym_has_a_name() -> None:
    assert render("{{ c }}", {**row(PAPILLON), "hypernym_lemmas": []}, Drawn()) == "papillon"


@given(texts | hostile, texts | hostile, texts | hostile, texts | hostile)
def test_class_text_and_scenes_are_values_never_templates(c: str, h_c: str, d_c: str, b: str) -> None:
    class_row = {"lemmas": [c], "definition": d_c, "hypernym_lemmas": [[h_c]], "wnid": "n00000000", "synset": "x.n.01"}
    assert render("{{ c }}|{{ h_c }}|{{ d_c }}|{{ b }}", class_row, Drawn(background=b)) == f"{c}|{h_c}|{d_c}|{b}"


@given(st.text())
def test_any_text_as_a_template_is_an_input_error_or_a_template(text: str) -> None:
    try:
        source = resolve_template(text)
    except InputError:
        return
    assert render(source, row(PAPILLON), Drawn(background="kitchen"))


@given(st.text(alphabet="{}%#| cbd_h.()'-+*/0"))
def test_broken_jinja_is_an_input_error(text: str) -> None:
    try:
        resolve_template("{{ c }}" + text)
    except InputError:
        return
