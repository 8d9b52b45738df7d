from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.core.errors import InputError
from pipeline.core.image_folders import SOLUTION, list_images

WNIDS = ("n00000001", "n00000002", "n00000003")


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def listed(root: Path, numbered_by: tuple[str, ...] | None = None) -> dict[str, list[str]]:
    found = list_images(root, numbered_by)
    return {wnid: [str(path.relative_to(root)) for path in paths] for wnid, paths in found.items()}


def test_folders_named_by_wnid(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "n00000002/b.png",
        "n00000002/a.JPEG",
        "n00000001/x.webp",
        "README.txt",
        ".cache/x",
        "n00000001/.DS",
        "n00000001/Thumbs.db",
    )
    (tmp_path / "n00000003").mkdir()
    expected = {"n00000001": ["n00000001/x.webp"], "n00000002": ["n00000002/a.JPEG", "n00000002/b.png"]}
    assert listed(tmp_path) == {**expected, "n00000003": []}


def test_torchvisions_val_and_train_beside_each_other(tmp_path: Path) -> None:
    fill(tmp_path, "val/n00000001/a.png", "train/n00000001/b.png")
    assert listed(tmp_path) == {"n00000001": ["val/n00000001/a.png"]}


def test_folders_named_by_numbers_are_numbers_and_not_words(tmp_path: Path) -> None:
    """ImageNet-V2: sorted as words, 10 would come before 2 and every label behind it be wrong."""
    every = tuple(f"n{number:08d}" for number in range(12))
    fill(tmp_path, *(f"{number}/{number}.jpeg" for number in (0, 2, 10, 11)))
    assert listed(tmp_path, every) == {f"n{n:08d}": [f"{n}/{n}.jpeg"] for n in (0, 2, 10, 11)}


@pytest.mark.parametrize("beside", [True, False])
def test_flat_images_with_kaggles_list(tmp_path: Path, beside: bool) -> None:
    fill(tmp_path / "val_flat", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG", "3.JPEG")
    lines = [
        "ImageId,PredictionString",
        "ILSVRC2012_val_00000002,n00000001 1 2 3 4 n00000001 5 6 7 8 ",
        "3,n00000001 1",
    ]
    lines.append("ILSVRC2012_val_00000001,n00000003 1 2 3 4 ")
    (tmp_path / ("" if beside else "val_flat") / SOLUTION).write_text("\n".join(lines))
    assert listed(tmp_path / "val_flat") == {
        "n00000001": ["3.JPEG", "ILSVRC2012_val_00000002.JPEG"],
        "n00000003": ["ILSVRC2012_val_00000001.JPEG"],
    }


def test_kaggles_archive_is_read_as_it_unpacks(tmp_path: Path) -> None:
    val = tmp_path / "ILSVRC/Data/CLS-LOC/val"
    fill(val, "a.JPEG")
    (tmp_path / SOLUTION).write_text(
        "ImageId,PredictionString\na,n00000002 1", encoding="utf-8-sig"
    )  # Excel's mark, too
    assert listed(val) == {"n00000002": ["a.JPEG"]}


def kaggle(text: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        fill(root, "a.JPEG")
        (root / SOLUTION).write_text(text)

    return write


@pytest.mark.parametrize(
    ("prepare", "numbered_by", "words"),
    [
        (
            lambda root: fill(root, "a.JPEG"),
            WNIDS,
            "none of the layouts.*one sub-folder per WNID.*LOC_val_solution.csv",
        ),
        (lambda root: fill(root, "cats/a.JPEG"), WNIDS, "none of the layouts"),
        (
            lambda root: fill(root, "0/a.png"),
            None,
            "named by numbers.*imagenet_v2_matched_frequency.*evaluate.test_set=NAME; or name the sub-folders by WNID",
        ),
        (lambda root: fill(root, "0/a.png", "3/a.png"), WNIDS, "sub-folder 3 is above 2"),
        (kaggle("ImageId,PredictionString\nb,n00000001 1"), None, "lacks image 'b'"),
        (kaggle("ImageId,PredictionString\na,cat"), None, "is not Kaggle's list"),
        (kaggle("a,n00000001"), None, "is not Kaggle's list"),
        (kaggle("ImageId,PredictionString\na,n00000001 1\na,n00000002 1"), None, "image 'a' .* or has it twice"),
        (lambda root: (fill(root, "a.JPEG"), (root / SOLUTION).write_bytes(b"\xff\xfe1")), None, "no list in UTF-8"),
    ],
    ids=[
        "flat without a list",
        "words",
        "numbers",
        "high number",
        "lost image",
        "no wnid",
        "no header",
        "twice",
        "bytes",
    ],
)
def test_what_is_refused(tmp_path: Path, prepare, numbered_by, words: str) -> None:
    prepare(tmp_path)
    with pytest.raises(InputError, match=words):
        list_images(tmp_path, numbered_by)
