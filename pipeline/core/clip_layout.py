"""Where a CLIP model's files lie, and the questions about style it is asked. No torch in here."""

from __future__ import annotations

from pipeline.core.model_source import Layout

CLIP = Layout("audit.clip", "config.json", "", "CLIP model")

DOMAINS = {
    "photo": "a photo of a {}",
    "drawing": "a drawing of a {}",
    "painting": "a painting of a {}",
    "render": "a 3D render of a {}",
    "text": "a page of text",
}
"""Domain -> what it is looked for with; the image's own class stands in it. The first is the natural one."""
NATURAL = "photo"
