from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.audit import class_numbers, totals, worst_first
from pipeline.core.audit_page import AuditPage, ClassLine, audit_picture, render_audit
from pipeline.core.classes import load_class_table
from pipeline.core.clip_layout import DOMAINS
from pipeline.core.config import RecipeConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.gallery import ClassRow
from pipeline.core.images import encode_image
from pipeline.core.transfer_config import AuditConfig
from tests.audit_columns import columns
from tests.browser.pages import HOSTILE, LOOK


def make_page(names: list[str], side: int, *, has_clip: bool) -> AuditPage:
    """Ten classes with numbers; pictures of the three worst, of which one image is flagged."""
    train, labels = load_fashion_mnist(None, "train")
    hashes = [int(value) for value in np.random.default_rng(0).integers(0, 1 << 62, 60)]
    read = columns([n % 10 for n in range(60)], hashes, ["blank" if n == 3 else "ok" for n in range(60)])
    numbers, near = class_numbers(read, None, 10, AuditConfig(duplicate_distance=24))
    if has_clip:
        said = {"clip_images": 6, "score": 0.25, "clip_distance": 0.1, "non_natural": 0.25}
        domains = dict.fromkeys(DOMAINS, 0.2)
        numbers = [{**n, **said, "agreement": label / 10, "domains": domains} for label, n in enumerate(numbers)]
    order, badness = worst_first(numbers)
    rows = []
    for label in order[:3]:
        pictures = []
        for index, number in enumerate(np.flatnonzero(labels == label)[:4]):
            pixels = np.asarray(Image.fromarray(as_rgb32(train[number : number + 1])[0]).resize((side, side)))
            row = {"class_name": names[label], "prompt": f"{names[label]}, a thing", "seed": 7**20, "image_id": index}
            told = {"status": "nsfw" if index == 3 else "ok", "reason": "flagged", "truncated": False, "token_count": 9}
            image = {"image": {"bytes": encode_image(pixels, RecipeConfig())}}
            against = [f"CLIP: rather {names[0]} (0.31 against 0.22)"] if index < 2 else []
            pictures.append(audit_picture({**row, **told, **image}, against))
        rows.append(ClassRow(names[label], f"n{label:08d}", pictures))
    return AuditPage(
        recipe_id="0123456789abcdef",
        created="2026-01-02 03:04 UTC",
        class_table="fashion_mnist",
        totals=totals(read, near, numbers),
        real={"near_duplicates": 0.125, "hash_distance": 31.25} if has_clip else None,
        lines=[ClassLine(names[label], f"n{label:08d}", badness[label], numbers[label]) for label in order],
        rows=rows,
        missing=[] if has_clip else ["No CLIP <b>bold</b> model was given."],
        has_clip=has_clip,
        duplicate_distance=4,
        pairs_per_class=2000,
        clip_images_per_class=50,
        is_large=side > 96,
        settings={"recipe.template": names[0]},
    )


def write_page(folder: Path, names: list[str], side: int, *, has_clip: bool = True) -> Path:
    path = folder / "audit.html"
    path.write_text(render_audit(make_page(names, side, has_clip=has_clip)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme", "side"), [(1200, "light", 32), (1200, "dark", 512), (390, "light", 512)])
def test_the_page_is_whole_on_a_desk_and_on_a_phone(browser, width: int, scheme: str, side: int, tmp_path: Path):
    path = write_page(tmp_path, load_class_table("fashion_mnist").names, side)
    seen = browser.visit(path, width, 900, scheme, LOOK)
    value = seen["value"]
    assert value["title"] == "synthclones – audit of image set 0123456789abcdef"
    assert len(value["widths"]) == 9 and set(value["widths"]) == {min(side, 256)}  # every image was decoded
    assert len(value["headings"]) == 3 and len(value["captions"]) == 12
    assert sum(caption.startswith("CLIP: rather ") for caption in value["captions"]) == 6
    assert [text for text, _, _ in value["frames"]] == ["nsfw: flagged"] * 3
    assert "real images: 12.5%" in value["text"] and "real images: 31.2" in value["text"]
    assert "CLIP agrees" in value["text"] and "What is not known" not in value["text"]
    assert value["overflow"] <= 0  # nothing sticks out to the right
    assert value["paper"] == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [path.as_uri()]
    shots = Path(os.environ.get("SYNTHCLONES_SCREENSHOTS", tmp_path))
    shots.mkdir(exist_ok=True)
    (shots / f"audit_{width}_{scheme}.png").write_bytes(seen["screenshot"])


def test_without_clip_the_page_says_what_is_missing(browser, tmp_path: Path):
    path = write_page(tmp_path, load_class_table("fashion_mnist").names, 32, has_clip=False)
    text = browser.visit(path, 1200, 900, "light", LOOK)["value"]["text"]
    assert "What is not known" in text and "No CLIP <b>bold</b> model was given." in text and "CLIP agrees" not in text
    assert "real images" not in text


def test_hostile_names_prompts_and_words_are_only_text(browser, tmp_path: Path):
    names = [*HOSTILE, *(f"{text} again" for text in HOSTILE)][:10]
    path = write_page(tmp_path, names, 32)
    seen = browser.visit(path, 1200, 900, "light", LOOK)
    value = seen["value"]
    assert value["title"].startswith("synthclones")  # no script changed it
    assert value["scripts"] == 0 and value["marks"] == [] and seen["dialogs"] == []
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [path.as_uri()]
    for text in HOSTILE:
        assert text in value["text"]
    assert f"CLIP: rather {HOSTILE[0]}" in value["text"]
