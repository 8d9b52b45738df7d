"""Captions of the embedded generator."""

from __future__ import annotations

import pytest

from pipeline.core.backgrounds import load_backgrounds
from pipeline.core.captions import Captions
from pipeline.core.classes import load_class_table
from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig, load_generator_config
from pipeline.core.prompts import Drawn, render, resolve_template


def test_captions_are_the_prompts_of_the_four_recipes() -> None:
    captions = Captions.of(load_generator_config("fashion"))
    boot = load_class_table("fashion_mnist").rows[9]
    scenes = load_backgrounds("places365")
    sources = [resolve_template(name) for name in ("c", "c, h_c", "c, d_c", "c, h_c inside b")]
    expected = [[render(source, boot, Drawn())] for source in sources[:3]]
    assert captions.by_class[9] == [*expected, [render(sources[3], boot, Drawn(background=scene)) for scene in scenes]]


def test_a_template_that_is_unknown_is_an_error() -> None:
    with pytest.raises(InputError, match="unknown"):
        Captions.of(GeneratorConfig(templates=("c, zz",)))
