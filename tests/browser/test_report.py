from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.core.classes import load_class_table
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.flatten import flatten
from pipeline.core.gallery import ClassRow, Picture, chosen_examples, data_uri, scored_picture, thumbnail_uri
from pipeline.core.metrics import Scores, ScoreSums
from pipeline.core.plots import confusion_png, curves_png, spider_png
from pipeline.core.report import Report, Stage, render_report
from pipeline.core.shift import ShiftRow
from pipeline.core.verdict import ScoredModel, verdict
from tests.browser.pages import HOSTILE, LOOK


def scores(labels: np.ndarray, accuracy: float, seed: int) -> Scores:
    """A made-up model that is right on `accuracy` of the images."""
    generator = torch.Generator().manual_seed(seed)
    right = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 10) * 3.0
    sums = ScoreSums(10, 15)
    logits = torch.randn(len(labels), 10, generator=generator) * 1.6 + right * (0.55 + accuracy)
    sums.add(logits, torch.from_numpy(labels).long())
    return sums.result()


def make_report(names: list[str], prompts: list[str]) -> Report:
    """A report of two twins with three and one seeds; real training images stand in for generated ones."""
    train, train_labels = load_fashion_mnist(None, "train")
    test, test_labels = load_fashion_mnist(None, "test")
    test_images = as_rgb32(test)
    models = [ScoredModel(f"{s:016x}", "synthetic", s, 2000, scores(test_labels, 0.3, s)) for s in range(3)]
    models.append(ScoredModel(f"{9:016x}", "real", 0, 2000, scores(test_labels, 0.45, 9)))
    rows = []
    for label, name in enumerate(names):
        first = np.flatnonzero(train_labels == label)[:8]
        images = [Image.fromarray(image) for image in as_rgb32(train[first])]
        generated = [
            Picture(thumbnail_uri(image), name, [prompts[label], f"seed {7**20 + i}", f"image {label << 32 | i}"])
            for i, image in enumerate(images)
        ]
        tested = [
            scored_picture(test_images[p], models[0].scores, p, names) for p in chosen_examples(models[0].scores, label)
        ]
        rows.append(ClassRow(name, f"n{label:08d}", generated, tested))
    epochs = [{"epoch": e, "loss": 2.3 / e**0.6, "accuracy": 1 - 0.9 / e**0.7} for e in range(1, 21)]
    steps = [("synthetic", epochs), ("real", [{**e, "loss": e["loss"] * 0.9} for e in epochs])]
    confusions = [("synthetic", models[0].scores.confusion), ("real", models[3].scores.confusion)]
    return Report(
        created="2026-01-02 03:04 UTC",
        metrics={
            "test_set": {"name": "fashion_mnist", "images": 10_000},
            "num_calibration_bins": 15,
            "corruptions": None,
            **verdict(models, 10),
        },
        class_names=names,
        rows=rows,
        confusions=[(group, data_uri(confusion_png(confusion, names))) for group, confusion in confusions],
        shift=[
            ShiftRow(
                "fashion_mnist", 10_000, 10, "top-1", True, {"synthetic": (0.78, 0.01), "real": (0.8, None)}, 0.02
            ),
            ShiftRow(
                names[0],
                900,
                3,
                "top-1 among the set's classes",
                True,
                {"synthetic": (0.3, 0.02), "real": (0.4, None)},
                0.1,
            ),
        ],
        spider=data_uri(
            spider_png(["fashion_mnist", names[0], "noise"], {"synthetic": [0.8, 0.3, 0.5], "real": [0.8, 0.4, 0.7]})
        ),
        curves=data_uri(curves_png(steps)),
        stages=[Stage("generate", "2,000 images", 88.0, 22.7), Stage("train", "20 epochs", 201.0, 199.4)],
        identities={"image set": "images/0123456789abcdef", "storage root": "/somewhere/runs"},
        settings=flatten({"recipe": {"template": "c, h_c", "guidance_scale": 2.0}, "images_per_class": 200}),
        versions={"torch": "2.8", "ray": "2.60"},
        tracking=("0" * 32, "mlflow ui --backend-store-uri 'sqlite:////somewhere/runs/mlflow.db'"),
    )


@pytest.fixture(scope="module")
def plain_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = load_class_table("fashion_mnist")
    prompts = [", ".join([*row["lemmas"], *row["hypernym_lemmas"][0]]).replace("_", " ") for row in table.rows]
    path = tmp_path_factory.mktemp("plain") / "report.html"
    path.write_text(render_report(make_report(table.names, prompts)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [*HOSTILE, *(f"{text} again" for text in HOSTILE)][:10]
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    path.write_text(render_report(make_report(names, names)), encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_the_page_is_whole_on_a_desk_and_on_a_phone(browser, plain_page: Path, width: int, scheme: str, tmp_path: Path):
    seen = browser.visit(plain_page, width, 900, scheme, LOOK)
    value = seen["value"]
    assert value["title"].startswith("synthclones – ") and "top-1 on fashion_mnist" in value["title"]
    assert len(value["widths"]) > 80 and min(value["widths"]) >= 28  # every image was decoded
    assert all(value["alts"])
    assert value["gap"].startswith("+") and "real is better" in value["text"]
    assert value["overflow"] <= 0  # nothing sticks out to the right
    assert value["paper"] == ("rgb(13, 17, 23)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [plain_page.as_uri()]
    shots = Path(os.environ.get("SYNTHCLONES_SCREENSHOTS", tmp_path))
    shots.mkdir(exist_ok=True)
    (shots / f"report_{width}_{scheme}.png").write_bytes(seen["screenshot"])
    with Image.open(shots / f"report_{width}_{scheme}.png") as image:
        assert image.width == width and image.height > 2000


def test_prompt_and_seed_stand_under_every_generated_image(browser, plain_page: Path):
    captions = browser.visit(plain_page, 1200, 900, "light", LOOK)["value"]["captions"]
    generated = [caption for caption in captions if "seed" in caption]
    assert len(generated) == 80
    for caption in generated:
        prompt, seed, image = caption.split("\n")
        assert prompt and seed.startswith("seed ") and image.startswith("image ")


def test_hostile_names_and_prompts_are_only_text(browser, hostile_page: Path):
    seen = browser.visit(hostile_page, 1200, 900, "light", LOOK)
    value = seen["value"]
    assert value["title"].startswith("synthclones")  # no script changed it
    assert value["scripts"] == 0 and value["marks"] == [] and seen["dialogs"] == []
    assert [url for url in seen["requests"] if not url.startswith("data:image/")] == [hostile_page.as_uri()]
    for text in HOSTILE:
        assert text in value["text"]


def test_the_page_is_small(plain_page: Path):
    assert plain_page.stat().st_size < 3_000_000
