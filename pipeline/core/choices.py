"""What a recipe may leave to chance, image by image: which template, and how much guidance."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pipeline.core.identity import choose, uniform

MAX_GUIDANCE = 50.0
MAX_WEIGHT = 1e9
"""Of a template; far from where a sum of weights is infinite."""


@dataclass(frozen=True)
class WeightedTemplate:
    """One of the templates that images are drawn over.

    Args:
        template: a name from presets/prompts.yaml, or Jinja source.
        weight: relative to the other ones', above 0, at most `MAX_WEIGHT`.
    """

    template: str
    weight: float


@dataclass(frozen=True)
class GuidanceRange:
    """Guidance drawn evenly between two ends.

    Args:
        low: at least 0.
        high: above `low`, at most `MAX_GUIDANCE`.
    """

    low: float
    high: float


Template = str | tuple[WeightedTemplate, ...]
Guidance = float | tuple[float, ...] | GuidanceRange


def parse_template(value: Any) -> Template:
    """A template, or a mixture from a list of mappings `template`, `weight`. Raises `ValueError` with the mend."""
    if isinstance(value, list | tuple) and value:
        return tuple(_weighted(item) for item in value)
    if not isinstance(value, str):
        message = "must be a template's name, a template, or a list of {template: …, weight: …}"
        raise ValueError(message)  # noqa: TRY004 - pydantic turns it into the user's message, a TypeError not
    return value


def _weighted(item: Any) -> WeightedTemplate:
    if isinstance(item, WeightedTemplate):
        return item
    if isinstance(item, Mapping) and item.keys() <= {"template", "weight"} and isinstance(item.get("template"), str):
        weight = item.get("weight", 1)
        if isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= MAX_WEIGHT:
            return WeightedTemplate(item["template"], float(weight))
    raise ValueError(
        f"every part of a mixture must be {{template: TEXT, weight: a number above 0, at most {MAX_WEIGHT:g}}}"
    )


def parse_guidance(value: Any) -> Guidance:
    """A number, a list to draw from, or a range `low`, `high`. Raises `ValueError` with the mend."""
    if isinstance(value, list | tuple) and value:
        return tuple(_number(item) for item in value)
    if isinstance(value, GuidanceRange):
        return value
    if isinstance(value, Mapping) and value.keys() == {"low", "high"}:
        low, high = _number(value["low"]), _number(value["high"])
        if low >= high:
            raise ValueError(f"low {low:g} must be below high {high:g}")
        return GuidanceRange(low, high)
    return _number(value)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number <= MAX_GUIDANCE:
        raise ValueError(f"must be a number from 0 to {MAX_GUIDANCE:g}, a list of such, or {{low: …, high: …}}")
    return number


def as_plain(value: Template | Guidance) -> Any:
    """The value as YAML and JSON hold it."""
    if isinstance(value, tuple):
        return [dict(item.__dict__) if isinstance(item, WeightedTemplate) else item for item in value]
    return dict(value.__dict__) if isinstance(value, GuidanceRange) else value


def describe_template(template: Template) -> str:
    """For tables and lines: a mixture as `c, h_c (1) | c, d_c (2)`."""
    if isinstance(template, str):
        return template
    return " | ".join(f"{part.template} ({part.weight:g})" for part in template)


def describe_guidance(guidance: Guidance) -> str:
    """For tables and lines: `2`, `1 | 2 | 4` or `1 to 7.5`."""
    if isinstance(guidance, tuple):
        return " | ".join(f"{value:g}" for value in guidance)
    return f"{guidance.low:g} to {guidance.high:g}" if isinstance(guidance, GuidanceRange) else f"{guidance:g}"


def highest(guidance: Guidance) -> float:
    """The most guidance that an image may get; above 1 the denoiser runs with and without the prompt."""
    if isinstance(guidance, tuple):
        return max(guidance)
    return guidance.high if isinstance(guidance, GuidanceRange) else guidance


def draw_template(weights: list[float], recipe_hash: str, identifier: int) -> int:
    """Index of an image's template."""
    if len(weights) == 1:
        return 0
    ends = list(accumulate(weights))
    return min(bisect_right(ends, uniform(recipe_hash, identifier, "template") * ends[-1]), len(weights) - 1)


def draw_guidance(guidance: Guidance, recipe_hash: str, identifier: int) -> float:
    """An image's guidance."""
    if isinstance(guidance, tuple):
        return guidance[choose(recipe_hash, identifier, "guidance", len(guidance))]
    if isinstance(guidance, GuidanceRange):
        return guidance.low + (guidance.high - guidance.low) * uniform(recipe_hash, identifier, "guidance")
    return guidance
