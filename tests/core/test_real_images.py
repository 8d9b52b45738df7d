from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.core.augment import eval_transform
from pipeline.core.classes import ClassTable, load_class_table
from pipeline.core.datasets import as_rgb32, load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.image_folders import SOLUTION
from pipeline.core.real_images import LabelledImages, open_images
from pipeline.core.test_set_opening import open_test_sets
from pipeline.core.test_sets import known_sets

FASHION = load_class_table("fashion_mnist")
THREE = ClassTable(FASHION.rows[:3], "")


def open_test_set(where: str, classes: ClassTable) -> LabelledImages:
    found, missing = open_test_sets(EvaluateConfig(test_set=where), classes, None)
    assert len(found) == 1 and not missing
    return next(iter(found.values())).images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images of each of three classes, of different sizes, whose grey value tells which they are."""
    for label, wnid in enumerate(THREE.wnids):
        (tmp_path / wnid).mkdir()
        for number in range(2):
            grey = 40 * label + 10 * number
            Image.new("RGB", (30 + 5 * number, 24), (grey, grey, grey)).save(tmp_path / wnid / f"{number}.png")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_fashion_mnist_is_the_published_test_split():
    images = open_test_set("fashion_mnist", FASHION)
    raw, labels = load_fashion_mnist(None, "test")
    assert len(images) == 10_000
    batch, batch_labels = next(images.batches(7, 32))
    assert torch.equal(batch, eval_transform(torch.from_numpy(as_rgb32(raw[:7])), 32))
    assert batch_labels.tolist() == labels[:7].tolist()
    assert (images.image(3)[2:30, 2:30, 0] == raw[3]).all()


def test_every_image_comes_once_with_its_label():
    images = open_test_set("fashion_mnist", FASHION)
    sizes = [(len(batch), len(labels)) for batch, labels in images.batches(3000, 16)]
    assert sizes == [(3000, 3000)] * 3 + [(1000, 1000)]


def test_fashion_mnist_cannot_score_other_classes():
    with pytest.raises(InputError, match="3 classes of the run are not its 10"):
        open_test_set("fashion_mnist", THREE)


def test_folder_labels_follow_the_class_table(folder: Path):
    turned = ClassTable([{**row, "class_index": i} for i, row in enumerate(reversed(THREE.rows))], "")
    images = open_test_set(str(folder), turned)
    assert [Path(p).parent.name for p in images.files] == [w for w in turned.wnids for _ in range(2)]
    batches = list(images.batches(4, 16))
    assert [len(batch) for batch, _ in batches] == [4, 2]
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 1, 1, 2, 2]
    assert images.image(0)[0, 0].tolist() == [80, 80, 80]
    expected = eval_transform(torch.from_numpy(images.image(5))[None], 16)
    assert torch.equal(batches[1][0][1], expected[0])
    assert batches[0][0].shape[1:] == (3, 16, 16)


def test_fingerprint_tells_another_content(folder: Path):
    before = open_test_set(str(folder), THREE).fingerprint
    assert open_test_set(str(folder), THREE).fingerprint == before
    (folder / THREE.wnids[1] / "1.png").rename(folder / THREE.wnids[1] / "2.png")
    assert open_test_set(str(folder), THREE).fingerprint != before


def test_pictures_of_equal_names_and_sizes_are_told_apart(folder: Path):
    found = set()
    for grey in (10, 200):
        for wnid in THREE.wnids:
            Image.new("RGB", (40, 40), (grey, grey, grey)).save(folder / wnid / "0.bmp")
        found.add(open_test_set(str(folder), THREE).fingerprint)
    assert len(found) == 2


def test_labels_that_stand_in_a_list_are_a_part_of_the_fingerprint(tmp_path: Path):
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    found = set()
    for labels in ((0, 1, 2, 2), (0, 1, 1, 2)):
        lines = [f"{name},{THREE.wnids[label]} 1" for name, label in zip("abcd", labels, strict=True)]
        (tmp_path / SOLUTION).write_text("\n".join(["ImageId,PredictionString", *lines]))
        found.add(open_test_set(str(tmp_path), THREE).fingerprint)
    assert len(found) == 2


def test_an_anomaly_set_without_images_is_refused(tmp_path: Path):
    (tmp_path / "n01443537").mkdir()
    with pytest.raises(InputError, match="holds no images; fill it"):
        open_images(known_sets()["imagenet_o"], str(tmp_path), load_class_table("imagenet100"))


def remove_class(folder: Path) -> None:
    for path in (folder / THREE.wnids[1]).iterdir():
        path.unlink()
    (folder / THREE.wnids[1]).rmdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (remove_class, f"lacks a sub-folder for {THREE.wnids[1]}"),
        (lambda folder: [p.unlink() for p in (folder / THREE.wnids[2]).iterdir()], f"{THREE.wnids[2]} holds no images"),
    ],
    ids=["missing", "empty"],
)
def test_a_wrong_folder_is_refused_before_anything_is_scored(folder: Path, damage, words: str):
    damage(folder)
    with pytest.raises(InputError, match=words):
        open_test_set(str(folder), THREE)


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(InputError, match="is no folder"):
        open_test_set(str(tmp_path / "nothing"), THREE)


@pytest.mark.parametrize("content", [b"", b"text", "half"], ids=["empty", "text", "cut"])
def test_an_unreadable_image_is_named(folder: Path, content):
    path = folder / THREE.wnids[0] / "1.png"
    if content == "half":
        noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()[:1500]
    path.write_bytes(content)
    images = open_test_set(str(folder), THREE)
    with pytest.raises(InputError, match=f"{path}.*replace or remove it"):
        list(images.batches(2, 16))
