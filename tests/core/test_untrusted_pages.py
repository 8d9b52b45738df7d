"""No text of a class, a prompt or a failure becomes markup in any page; the report's own test is in test_report.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.core.audit import class_numbers, totals
from pipeline.core.audit_page import AuditPage, ClassLine, audit_picture, render_audit
from pipeline.core.gallery import ClassRow
from pipeline.core.preview import PreviewPage, preview_picture, render_preview
from pipeline.core.set_gallery import ClassCard, class_page, index_page
from pipeline.core.transfer_config import AuditConfig
from tests.audit_columns import columns
from tests.core.test_report import for_hostile_texts, shape

READ = columns([0, 0], [1, 2])
NUMBERS, NEAR = class_numbers(READ, None, 1, AuditConfig())
TOTALS = totals(READ, NEAR, NUMBERS)


def row(text: str, status: str) -> dict[str, object]:
    """Of an image that is not shown, so that its frame says why."""
    return {
        "class_name": text, "prompt": text, "seed": 7, "image_id": 0, "status": status, "reason": text,
        "truncated": False, "token_count": 9, "image": None,
    }  # fmt: skip


def preview(text: str) -> str:
    pictures = [preview_picture(row(text, status)) for status in ("failed", "nsfw")]
    return render_preview(
        PreviewPage(
            recipe_id=text, created=text, class_table=text, num_classes=1, rows=[ClassRow(text, text, pictures)],
            counts={text: 1}, batch_size=1, seconds_per_image=1.0, load_s=1.0, estimate=text, is_large=False,
            made_by={text: text}, settings={text: text},
        )
    )  # fmt: skip


def audit(text: str) -> str:
    pictures = [audit_picture(row(text, status), [text]) for status in ("failed", "nsfw")]
    return render_audit(
        AuditPage(
            recipe_id=text, created=text, class_table=text, totals=TOTALS, real=None,
            lines=[ClassLine(text, text, 0.5, NUMBERS[0])], rows=[ClassRow(text, text, pictures)], missing=[text],
            has_clip=False, duplicate_distance=4, pairs_per_class=2, clip_images_per_class=2, is_large=False,
            settings={text: text},
        )
    )  # fmt: skip


def gallery_page(text: str) -> str:
    rows = [ClassRow(text, text, [preview_picture(row(text, "failed"))])]
    return class_page(rows, 0, ["page-001.html"], is_large=False, shared=shared(text)).decode()


def gallery_index(text: str) -> str:
    return index_page([ClassCard(text, text, "page-001.html#n00000001", None)], 1, shared(text)).decode()


def shared(text: str) -> dict[str, object]:
    return {"recipe_id": text, "about": text, "created": text, "per_class": 1}


PAGES: list[Callable[[str], str]] = [preview, audit, gallery_page, gallery_index]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_no_text_can_become_markup(page: Callable[[str], str]) -> None:
    plain = shape(page("plain"))
    assert len(plain) > 10

    @for_hostile_texts
    def check(text: str) -> None:
        assert shape(page(text)) == plain

    check()
    assert "49" not in page("{{ 7 * 7 }}").replace("{{ 7 * 7 }}", "")
