"""Rows of words as lines for a terminal, or of a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])]) for first, *rest in rows]


def markdown_cell(text: str) -> str:
    """Any text in a Markdown table or list: it can end neither cell nor line, and it is no HTML."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def markdown_row(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(markdown_cell, cells)) + " |"


def markdown_head(cells: Sequence[str]) -> list[str]:
    """The first two lines of a Markdown table."""
    return [markdown_row(cells), "|" + "---|" * len(cells)]


def markdown_link(text: str, target: str) -> str:
    """A link of any text to a path that needs no escape."""
    return f"[{markdown_cell(text).replace('[', '&#91;').replace(']', '&#93;')}]({target})"


def few_digits(value: float) -> str:
    """A quantity for people: whole from 10 on, below that two digits that say something, e.g. `1,089`, `3.4`, `0.011`.

    Args:
        value: at least 0.
    """
    if value == 0 or value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}".rstrip("0").rstrip(".")
