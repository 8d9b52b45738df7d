import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from pipeline.core.clip_judge import ClipJudge, with_name
from pipeline.core.clip_layout import DOMAINS
from pipeline.core.errors import InputError
from tests.tiny_clip import COLOURS, build_clip, picture

PROMPT = "a photo of a {}"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "planted", planted=True)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip") / "random", planted=False)


def test_a_planted_model_names_colours_and_styles(planted: Path):
    judge = ClipJudge(planted, COLOURS, PROMPT, "cpu")
    shown = [(colour, style) for colour in COLOURS for style in ("photo", "drawing")]
    images = [Image.fromarray(picture(*what)) for what in shown]
    found = judge.judge(images, [COLOURS.index(colour) for colour, _ in shown])
    assert [COLOURS[label] for label in found.best] == [colour for colour, _ in shown]
    assert [list(DOMAINS)[domain] for domain in found.domain] == [style for _, style in shown]
    assert np.array_equal(found.own_score, found.best_score)
    wrong = judge.judge(images[:1], [1])  # a red one that was asked for as green
    assert COLOURS[wrong.best[0]] == "red" and wrong.own_score[0] < wrong.best_score[0]


def test_scores_are_the_cosines_of_the_model_itself(random: Path):
    names = ["red", "green", "{} and a rather long {0} name, longer than the others"]
    images = [Image.fromarray(picture("red", "photo")), Image.new("RGB", (40, 23), (9, 200, 30))]
    found = ClipJudge(random, names, PROMPT, "cpu").judge(images, [2, 0])
    model, tokenizer = CLIPModel.from_pretrained(random).eval(), CLIPTokenizer.from_pretrained(random)
    processor = ClipJudge(random, names, PROMPT, "cpu")._processor
    logits = []
    with torch.no_grad():
        for name in names:  # one by one, so that padding is none
            text = tokenizer(with_name(PROMPT, name), return_tensors="pt")
            pixels = processor(images=images, return_tensors="pt").pixel_values
            logits.append(model(pixel_values=pixels, **text).logits_per_image[:, 0] / model.logit_scale.exp())
    cosines = torch.stack(logits, dim=1).numpy()
    assert found.own_score == pytest.approx([cosines[0, 2], cosines[1, 0]], abs=1e-5)
    assert found.best_score == pytest.approx(cosines.max(1), abs=1e-5)
    assert found.best.tolist() == cosines.argmax(1).tolist()
    assert np.linalg.norm(found.vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_of_classes_with_one_text_the_own_is_the_nearest(planted: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.core.clip_judge.TEXTS_PER_FORWARD", 2)  # they would be in forwards of other lengths
    names = ["Red", "green", "blue", "a much longer name of green", "red"]
    found = ClipJudge(planted, names, PROMPT, "cpu").judge([Image.fromarray(picture("red", "photo"))] * 3, [0, 4, 1])
    assert found.best.tolist()[:2] == [0, 4] and found.best[2] in (0, 4)
    assert found.own_score[:2].tolist() == found.best_score[:2].tolist() and found.own_score[2] < found.best_score[2]


def test_a_name_is_only_text():
    assert with_name("a {} here", "{0.__class__} {}") == "a {0.__class__} {} here"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded|lacks"),
    ],
)
def test_a_folder_that_is_no_clip_is_refused(random: Path, tmp_path: Path, spoil, said: str):
    shutil.copytree(random, tmp_path / "clip")
    spoil(tmp_path / "clip")
    with pytest.raises(InputError, match=f"audit.clip: .*({said})"):
        ClipJudge(tmp_path / "clip", COLOURS, PROMPT, "cpu")
