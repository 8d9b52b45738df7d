"""Rows of a sound shard of 30, its second, spoilt in every way a bug could, and what `check_shard` says of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from pipeline.core.artifact import sha256_bytes
from pipeline.core.schema import FAILED

Rows = list[dict[str, Any]]


def png(size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "PNG")
    return file.getvalue()


def with_image(row: dict[str, Any], data: bytes) -> dict[str, Any]:
    return {**row, "image": {"bytes": data, "path": None}, "sha256": sha256_bytes(data)}


SPOILT: dict[str, tuple[Callable[[Rows], Rows], str]] = {
    "a row twice": (lambda rows: [rows[0], rows[0], *rows[2:]], "row 31 has image_id"),
    "a row less": (lambda rows: rows[:-1], "it holds 29 rows instead of 30"),
    "rows in another order": (lambda rows: rows[::-1], "27 more rows"),
    "another seed": (lambda rows: [{**rows[0], "seed": 5}, *rows[1:]], "row 30 has another seed"),
    "another label": (
        lambda rows: [{**rows[0], "class_index": (rows[0]["class_index"] + 1) % 10}, *rows[1:]],
        ") has class_index",
    ),
    **{
        f"another {name}": (lambda rows, name=name: [{**rows[0], name: "other"}, *rows[1:]], f") has {name} 'other'")
        for name in ("class_name", "wnid", "prompt", "template", "background", "style")
    },
    "another guidance": (lambda rows: [{**rows[0], "guidance_scale": 7.25}, *rows[1:]], "has guidance_scale 7.25"),
    "changed bytes": (
        lambda rows: [{**rows[0], "image": {"bytes": b"x", "path": None}}, *rows[1:]],
        "its bytes do not have its sha256",
    ),
    "no image": (lambda rows: [with_image(rows[0], b"no image"), *rows[1:]], "cannot be decoded"),
    "half an image": (
        lambda rows: [with_image(rows[0], rows[0]["image"]["bytes"][:-30]), *rows[1:]],
        "cannot be decoded",
    ),
    "another size": (lambda rows: [with_image(rows[0], png(8)), *rows[1:]], "its image is 8x8 pixels"),
    "failed with an image": (lambda rows: [{**rows[0], "status": FAILED, "reason": "x"}, *rows[1:]], "failed with an"),
    "ok without an image": (lambda rows: [{**rows[0], "image": None}, *rows[1:]], "status ok without an image"),
}
