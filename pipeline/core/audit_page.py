"""The audit as one page: numbers of the set, all classes worst first, and pictures of the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.core.audit import ClipRows, SetColumns
from pipeline.core.clip_layout import DOMAINS, NATURAL
from pipeline.core.gallery import ClassRow, Picture
from pipeline.core.preview import preview_picture
from pipeline.core.report import render_page


@dataclass(frozen=True)
class ClassLine:
    """One class in the table.

    Args:
        name: short name.
        wnid: WordNet id.
        badness: 0..1, see `audit.worst_first`.
        numbers: see `audit.class_numbers`.
    """

    name: str
    wnid: str
    badness: float
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class AuditPage:
    """Everything the page shows. All text may be hostile: the template escapes it.

    Args:
        recipe_id: of the set.
        created: date and time, UTC.
        class_table: its name.
        totals: see `audit.totals`.
        real: the same of real training images; None when they were not asked for.
        lines: all classes, worst first.
        rows: the worst ones with pictures.
        missing: what could not be said, and why; one sentence each.
        has_clip: whether a CLIP model looked at images.
        duplicate_distance: bits.
        pairs_per_class: images of a class that were compared at most.
        clip_images_per_class: images of a class that CLIP saw at most.
        is_large: the images are more than a few dozen pixels wide.
        settings: dotted name -> value of the resolved config.
    """

    recipe_id: str
    created: str
    class_table: str
    totals: Mapping[str, Any]
    real: Mapping[str, Any] | None
    lines: Sequence[ClassLine]
    rows: Sequence[ClassRow]
    missing: Sequence[str]
    has_clip: bool
    duplicate_distance: int
    pairs_per_class: int
    clip_images_per_class: int
    is_large: bool
    settings: Mapping[str, Any]


def render_audit(page: AuditPage) -> str:
    """The page as HTML that needs nothing but itself."""
    return render_page("audit.html.jinja", page=page, domains=list(DOMAINS))


def complaints(
    columns: SetColumns, near_rows: Any, clip: ClipRows | None, names: Sequence[str]
) -> dict[tuple[int, int], list[str]]:
    """(class, index) -> what is said against that image; images without a word against them are not in it."""
    found: dict[tuple[int, int], list[str]] = {}
    for row in near_rows.nonzero()[0]:
        found.setdefault((int(columns.labels[row]), int(columns.indices[row])), []).append("near-duplicate")
    if clip:
        natural = list(DOMAINS).index(NATURAL)
        for row in ((clip.best != clip.labels) | (clip.domain != natural)).nonzero()[0]:
            against = found.setdefault((int(clip.labels[row]), int(clip.indices[row])), [])
            if clip.best[row] != clip.labels[row]:
                rather = f"CLIP: rather {names[clip.best[row]]}"
                against.append(f"{rather} ({clip.best_score[row]:.3f} against {clip.own_score[row]:.3f})")
            if clip.domain[row] != natural:
                against.append(f"CLIP: {list(DOMAINS)[clip.domain[row]]}, not {NATURAL}")
    return found


def audit_picture(row: Mapping[str, Any], against: Sequence[str]) -> Picture:
    """A row of a shard with the words against it first; what failed or was flagged is a frame, never a picture."""
    picture = preview_picture(row)
    return replace(picture, caption=[*against, *picture.caption], is_wrong=bool(against))
