from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.core.transfer_config import TransferConfig
from pipeline.core.transfer_folders import open_folder
from tests.transfer_layouts import picture, text


def fill(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        picture(root / name, number)


def test_train_and_test_folders_are_taken_as_they_are(tmp_path: Path):
    fill(tmp_path, "train/cat/1.png", "train/cat/2.PNG", "train/dog/1.jpg", "test/cat/9.png", "test/dog/8.png")
    (tmp_path / "train/cat/notes.txt").write_text("no image")
    found = open_folder(str(tmp_path), TransferConfig())
    assert found.class_names == ["cat", "dog"] and found.classifier == "lbfgs" and found.name == tmp_path.name
    assert found.trainval.labels.tolist() == [0, 0, 1] and found.test.labels.tolist() == [0, 1]
    assert found.test.image(0).shape == (8, 8, 3)


def test_val_stands_in_for_a_test_folder_that_is_not_there(tmp_path: Path):
    fill(tmp_path, "train/cat/1.png", "train/dog/1.jpg", "val/cat/9.png", "val/dog/8.png", "val/dog/9.png")
    assert open_folder(str(tmp_path), TransferConfig()).test.labels.tolist() == [0, 1, 1]
    fill(tmp_path, "test/cat/9.png", "test/dog/8.png")
    assert open_folder(str(tmp_path), TransferConfig()).test.labels.tolist() == [0, 1]


def test_a_folder_of_classes_is_split_by_the_seed(tmp_path: Path):
    fill(tmp_path, *(f"{kind}/{n}.png" for kind in ("a", "b") for n in range(10)))

    def tests(seed: int) -> list[Path]:
        found = open_folder(str(tmp_path), TransferConfig(split_seed=seed))
        assert set(found.trainval.files) | set(found.test.files) == set(tmp_path.rglob("*.png"))
        assert np.bincount(found.test.labels).tolist() == [3, 3]
        return list(found.test.files)

    assert tests(0) == tests(0) != tests(1)


def test_lists_name_images_and_labels(tmp_path: Path):
    fill(tmp_path, "x y.png", "z.png", "t.png")
    text(tmp_path / "trainval.txt", "x y.png 1", "", "z.png 0")
    text(tmp_path / "test.txt", "t.png 1")
    found = open_folder(str(tmp_path), TransferConfig(classifier="sgd"))
    assert found.trainval.labels.tolist() == [1, 0] and found.test.labels.tolist() == [1]
    assert found.classifier == "sgd"


@pytest.mark.parametrize(("place", "folder"), [(".", "."), ("train", ".."), (".", "train/.."), (".", "../birds/.")])
def test_a_set_is_called_as_its_folder_is(tmp_path: Path, monkeypatch, place: str, folder: str):
    root = tmp_path / "birds"
    fill(root, "train/cat/1.png", "train/dog/1.jpg", "test/cat/9.png", "test/dog/8.png")
    monkeypatch.chdir(root / place)
    found = open_folder(folder, TransferConfig())
    assert (found.name, found.trainval.name) == ("birds", "birds trainval")


def test_a_link_gives_its_own_name(tmp_path: Path):
    fill(tmp_path / "v3", "train/cat/1.png", "train/dog/1.jpg", "test/cat/9.png", "test/dog/8.png")
    (tmp_path / "birds").symlink_to(tmp_path / "v3")
    assert open_folder(str(tmp_path / "birds"), TransferConfig()).name == "birds"


def test_the_fingerprint_follows_labels_names_and_sizes_but_not_the_place(tmp_path: Path):
    for place in ("one", "two"):
        fill(tmp_path / place, "train/a/1.png", "train/b/1.png", "test/a/2.png", "test/b/2.png")
    first, second = (open_folder(str(tmp_path / place), TransferConfig()) for place in ("one", "two"))
    assert first.trainval.fingerprint == second.trainval.fingerprint
    (tmp_path / "two/train/b/1.png").rename(tmp_path / "two/train/b/3.png")
    assert open_folder(str(tmp_path / "two"), TransferConfig()).trainval.fingerprint != first.trainval.fingerprint


@pytest.mark.parametrize(
    ("names", "lists", "said"),
    [
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "test/c/1.png"], {}, "b, c stand in one of them only"),
        (["a/1.png"], {}, "1 class sub-folders"),
        (["a/1.png", "b/1.txt"], {}, "b/ holds no image"),
        (["a/1.png", "b/1.png"], {}, "has one image"),
        (["a.png"], {"trainval.txt": "a.png cat", "test.txt": ""}, "trainval.txt line 1 is no path"),
        (["a.png"], {"trainval.txt": "a.png 0", "test.txt": "a.png 0"}, "0, 1, … without a gap"),
        (["a.png"], {"trainval.txt": "a.png 0\na.png 1", "test.txt": "a.png 2"}, "test.txt no other ones"),
        (["a.png"], {"trainval.txt": "a.png 0\nb.png 1", "test.txt": "a.png 0"}, "b.png"),
        (["a.png"], {"trainval.txt": "a.png 0"}, "test.txt"),
        (["a.png"], {"trainval.txt": "a.png 0\na.png 1", "test.txt": ""}, "test.txt names no image"),
        (["a.png"], {"trainval.txt": "", "test.txt": "a.png 0"}, "trainval.txt names no image"),
    ],
)
def test_what_is_none_of_these_is_refused_with_the_reason(tmp_path: Path, names, lists, said: str):
    root = tmp_path / "set"
    fill(root, *(name for name in names if name.endswith(".png")))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    for name, content in lists.items():
        text(root / name, content)
    with pytest.raises(InputError) as caught:
        open_folder(str(root), TransferConfig())
    assert said in str(caught.value) and "trainval.txt and test.txt" in str(caught.value)
