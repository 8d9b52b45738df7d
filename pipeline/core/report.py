"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from pipeline.core.gallery import ClassRow
from pipeline.core.plots import COLOURS

if TYPE_CHECKING:  # torch, which other pages do not need
    from pipeline.core.shift import ShiftRow

TEMPLATES = Path(__file__).parent.parent / "assets" / "templates"


@dataclass(frozen=True)
class Stage:
    """What one stage cost.

    Args:
        name: of the stage.
        detail: what it did, in words.
        seconds: wall time, summed over resumed parts; None when it is not known.
        images_per_s: its rate; None when it is not known.
    """

    name: str
    detail: str
    seconds: float | None
    images_per_s: float | None = None


@dataclass(frozen=True)
class Report:
    """Everything the page shows. All text may be hostile: the template escapes it.

    Args:
        created: date and time, UTC.
        metrics: content of metrics.json (see `pipeline.stages.evaluate`).
        class_names: short names in label order.
        rows: classes with pictures.
        confusions: (group, data URI of the plot).
        shift: lines of the table of all test sets; empty when there is only the main one.
        spider: data URI of the plot of all test sets; None when they are too few.
        curves: data URI of the training curves; None when no model has any.
        stages: costs.
        identities: id of each artifact by what it is.
        settings: dotted name -> value of the resolved config.
        versions: package -> version.
        tracking: (MLflow run id, command that opens MLflow); None when tracking is off.
    """

    created: str
    metrics: Mapping[str, Any]
    class_names: Sequence[str]
    rows: Sequence[ClassRow]
    confusions: Sequence[tuple[str, str]]
    shift: Sequence[ShiftRow]
    spider: str | None
    curves: str | None
    stages: Sequence[Stage]
    identities: Mapping[str, str]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    tracking: tuple[str, str] | None

    @property
    def by_class(self) -> list[tuple[int, float | None]]:
        """Label and gap (real less synthetic, 0..1; None without both or without test images) of every class.

        The largest gaps come first; without twins the order is that of the labels.
        """
        shares = {name: group["per_class_mean"] for name, group in self.metrics["groups"].items()}
        if not self.metrics["gap"]:
            return [(label, None) for label in range(len(self.class_names))]
        pairs = zip(shares["real"], shares["synthetic"], strict=True)
        gaps = [(label, None if None in pair else pair[0] - pair[1]) for label, pair in enumerate(pairs)]
        return sorted(gaps, key=lambda one: (one[1] is None, -(one[1] or 0)))


def render_report(report: Report) -> str:
    """The page. Class names, prompts and settings are text in it, whatever they hold."""
    return render_page("report.html.jinja", report=report, metrics=report.metrics)


def render_page(template: str, **values: object) -> str:
    """A page of `TEMPLATES`; every value is escaped in it, and a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, duration=duration)
    return environment.get_template(template).render(**values, colours=COLOURS)


def percent(share: float | None) -> str:
    """0.7123 -> "71.2%"; a class without test images has none."""
    return "–" if share is None else f"{100 * share:.1f}%"


def points(gap: float) -> str:
    """0.0312 -> "+3.1": percentage points with their sign."""
    return f"{100 * gap:+.1f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Seconds as people say them: "42 s", "7 min 05 s", "3 h 20 min"."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
