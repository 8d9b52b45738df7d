from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from pipeline.core.config import RecipeConfig
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.gallery import ClassRow
from pipeline.core.images import encode_image
from pipeline.core.preview import PreviewPage, preview_picture, render_preview
from tests.browser.pages import HOSTILE, LOOK


def make_page(names: list[str], side: int) -> PreviewPage:
    """A page of three images of each class, of which one of the first class failed and one was flagged."""
    train, labels = load_fashion_mnist(None, "train")
    rows = []
    for label, name in enumerate(names):
        pictures = []
        for index, number in enumerate(np.flatnonzero(labels == label)[:3]):
            pixels = np.asarray(Image.fromarray(as_rgb32(train[number : number + 1])[0]).resize((side, side)))
            status = {1: "failed", 2: "nsfw"}.get(index, "ok") if label == 0 else "ok"
            reason = {"failed": f"RuntimeError: {name}", "nsfw": "flagged"}.get(status)
            row = {"class_name": name, "prompt": f"{name}, a thing", "seed": 7**20 + index, "image_id": index}
            image = {"image": {"bytes": encode_image(pixels, RecipeConfig())}}
            told = {"status": status, "reason": reason, "truncated": label == 1, "token_count": 81}
            pictures.append(preview_picture({**row, **image, **told}))
        rows.append(ClassRow(name, f"n{label:08d}", pictures))
    return PreviewPage(
        recipe_id="0123456789abcdef",
        created="2026-01-02 03:04 UTC",
        class_table="fashion_mnist",
        num_classes=10,
        rows=rows,
        counts={"ok": 28, "failed": 1, "nsfw": 1},
        batch_size=16,
        seconds_per_image=0.2345,
        load_s=7.5,
        estimate="1,267 images per class will need about 8.3 hours on 1 such actor, loading not counted.",
        is_large=side > 96,
        made_by={"device": "NVIDIA <b>bold</b>", "torch": "2.8"},
        settings={"recipe.template": names[0], "images_per_class": 1267},
    )


def write_page(folder: Path, names: list[str], side: int) -> Path:
    path = folder / "preview.html"
    path.write_text(render_preview(make_page(names, side)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme", "side"), [(1200, "light", 32), (1200, "dark", 512), (390, "light", 512)])
def test_the_page_is_whole_on_a_desk_and_on_a_phone(browser, width: int, scheme: str, side: int, tmp_path: Path):
    path = write_page(tmp_path, load_class_table("fashion_mnist").names, side)
    seen = browser.visit(path, width, 900, scheme, LOOK)
    value = seen["value"]
    assert value["title"] == "synthclones – preview of image set 0123456789abcdef"
    assert len(value["widths"]) == 28 and set(value["widths"]) == {min(side, 256)}  # every image was decoded
    assert len(value["headings"]) == 10 and len(value["captions"]) == 30
    for caption in value["captions"]:
        prompt, seed, status, image = caption.split("\n")[:4]
        assert prompt and seed.startswith("seed ") and status in ("ok", "failed", "nsfw") and image.startswith("image ")
    assert sum("prompt cut: 81 tokens" in caption for caption in value["captions"]) == 3
    assert "0.234" in value["text"] and "about 8.3 hours on 1 such actor" in value["text"]
    assert value["overflow"] <= 0  # nothing sticks out to the right
    assert value["paper"] == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [path.as_uri()]
    shots = Path(os.environ.get("SYNTHCLONES_SCREENSHOTS", tmp_path))
    shots.mkdir(exist_ok=True)
    (shots / f"preview_{width}_{scheme}.png").write_bytes(seen["screenshot"])


def test_a_frame_of_the_same_size_stands_for_an_image_that_is_not_shown(browser, tmp_path: Path):
    names = load_class_table("fashion_mnist").names
    frames = browser.visit(write_page(tmp_path, names, 512), 1200, 900, "light", LOOK)["value"]["frames"]
    assert [text for text, _, _ in frames] == [f"failed: RuntimeError: {names[0]}", "nsfw: flagged"]
    assert all(width == height > 150 for _, width, height in frames)


def test_hostile_names_prompts_and_reasons_are_only_text(browser, tmp_path: Path):
    names = [*HOSTILE, *(f"{text} again" for text in HOSTILE)][:10]
    path = write_page(tmp_path, names, 32)
    seen = browser.visit(path, 1200, 900, "light", LOOK)
    value = seen["value"]
    assert value["title"].startswith("synthclones")  # no script changed it
    assert value["scripts"] == 0 and value["marks"] == [] and seen["dialogs"] == []
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [path.as_uri()]
    for text in HOSTILE:
        assert text in value["text"]
    assert f"failed: RuntimeError: {HOSTILE[0]}" in value["text"]
