"""Galleries of 1,000 classes in a real browser: fast, searchable, and nothing of a class table ever runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.gallery import ClassRow, Picture, thumbnail_uri
from pipeline.core.set_gallery import CLASSES_PER_PAGE, INDEX_SIDE, MAX_SIDE, ClassCard, class_page, index_page
from tests.browser.pages import HOSTILE, LOOK

SHARED = {"recipe_id": "0" * 16, "about": "'c, d_c', guidance 2", "created": "2026-01-02 03:04 UTC", "per_class": 8}
SEARCH_FOR = """
(async () => {
  await Promise.all([...document.images].slice(0, 20).map(image => image.decode()));
  const box = document.getElementById('search');
  const find = text => {
    box.value = text;
    box.dispatchEvent(new Event('input'));
    const seen = [...document.querySelectorAll('a.class-card')].filter(card => card.offsetParent);
    return seen.map(card => card.textContent.trim());
  };
  return {
    crane: find('crane'), wnid: find('N02123045'), two: find('cat  egyptian'), none: find('no such class').length,
    shown: document.getElementById('found').innerText, all: find('').length,
    links: [...document.querySelectorAll('a.class-card')].map(card => card.getAttribute('href')),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    title: document.title, scripts: document.scripts.length,
  };
})()
"""


def build(folder: Path, names: list[str], wnids: list[str]) -> Path:
    """A gallery of 8 JPEG pictures for each class; of the pages only the first and the last are written."""
    pixels = as_rgb32(load_fashion_mnist(None, "train")[0][:64])
    large = [Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC) for image in pixels]
    sources = [thumbnail_uri(image.copy(), MAX_SIDE) for image in large]
    cover = Picture(thumbnail_uri(large[0].copy(), INDEX_SIDE), "", [])
    rows = []
    for label, (name, wnid) in enumerate(zip(names, wnids, strict=True)):
        pictures = [
            Picture(sources[(label + i) % 64], name, [f"{name}, a text", f"seed {7**20 + i}", "ok"]) for i in range(8)
        ]
        rows.append(ClassRow(name, wnid, pictures))
    files = [f"page-{number:03d}.html" for number in range(1, -(-len(rows) // CLASSES_PER_PAGE) + 1)]
    cards = [
        ClassCard(row.name, row.wnid, f"{files[i // CLASSES_PER_PAGE]}#{row.wnid}", cover) for i, row in enumerate(rows)
    ]
    (folder / "index.html").write_bytes(index_page(cards, len(files), SHARED))
    for number in {0, len(files) - 1}:
        part = rows[number * CLASSES_PER_PAGE : (number + 1) * CLASSES_PER_PAGE]
        (folder / files[number]).write_bytes(class_page(part, number, files, is_large=True, shared=SHARED))
    return folder


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = load_class_table("imagenet1k")
    return build(tmp_path_factory.mktemp("thousand"), table.names, table.wnids)


def save(seen: dict[str, Any], name: str, tmp_path: Path) -> None:
    shots = Path(os.environ.get("SYNTHCLONES_SCREENSHOTS", tmp_path))
    shots.mkdir(exist_ok=True)
    (shots / name).write_bytes(seen["screenshot"])


def test_the_index_of_a_thousand_classes_is_small_and_finds_them(browser, thousand: Path, tmp_path: Path) -> None:
    index = thousand / "index.html"
    assert index.stat().st_size < 4_000_000
    start = time.monotonic()
    seen = browser.visit(index, 1200, 900, "light", SEARCH_FOR)
    assert time.monotonic() - start < 60  # on a busy machine, with the screenshot
    value = seen["value"]
    assert len(value["crane"]) == 2 and {text.split()[-1] for text in value["crane"]} == {"n02012849", "n03126707"}
    assert ["n02123045" in text for text in value["wnid"]] == [True]
    assert len(value["two"]) == 1 and "Egyptian" in value["two"][0]
    assert (value["none"], value["shown"], value["all"]) == (0, "0", 1000)
    assert value["links"][0] == "page-001.html#n01440764" and value["links"][-1] == "page-020.html#n15075141"
    assert value["overflow"] <= 0 and value["scripts"] == 1
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [index.as_uri()]
    save(seen, "gallery_index.png", tmp_path)


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (390, "light")])
def test_a_page_shows_fifty_classes_with_prompt_and_seed(
    browser, thousand: Path, tmp_path: Path, width: int, scheme: str
) -> None:
    page = thousand / "page-020.html"
    assert page.stat().st_size < 5_000_000
    seen = browser.visit(page, width, 900, scheme, LOOK)
    value = seen["value"]
    assert len(value["widths"]) == 400 and set(value["widths"]) == {MAX_SIDE} and len(value["headings"]) == 50
    assert all("seed" in caption for caption in value["captions"]) and value["scripts"] == 0
    assert "Previous page" in value["text"] and "Next page" not in value["text"]
    assert value["overflow"] <= 0
    save(seen, f"gallery_page_{width}_{scheme}.png", tmp_path)


def test_hostile_names_are_only_text(browser, tmp_path: Path) -> None:
    wnids = [f"n{number:08d}" for number in range(len(HOSTILE))]
    folder = build(tmp_path, HOSTILE, wnids)
    for page in ("index.html", "page-001.html"):
        seen = browser.visit(folder / page, 1200, 900, "light", LOOK)
        assert seen["value"]["title"].startswith("synthclones") and seen["value"]["marks"] == []
        assert seen["dialogs"] == [] and len(seen["value"]["headings"]) == (0 if page == "index.html" else len(HOSTILE))
        assert all(text in seen["value"]["text"] for text in HOSTILE)
        assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [(folder / page).as_uri()]
