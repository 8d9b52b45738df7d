from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

from pipeline.core import transfer_table
from pipeline.core.errors import MissingDataError
from pipeline.core.transfer_config import COG_SETS, LONG_TAIL_SETS, SMALL_SETS, TransferConfig
from pipeline.core.transfer_datasets import open_named
from pipeline.core.transfer_table import NAMED, open_built_in
from tests.transfer_layouts import LAYOUTS, eurosat

# Labels of trainval and of test in the tiny copies, in the order of their own lists.
LABELS = {
    "aircraft": ([0, 1], [1]),
    "cars": ([1, 0], [0, 1, 1]),
    "dtd": ([0, 1, 0, 1], [0, 1, 0, 1]),
    "flowers": ([1, 101, 0, 101], [0, 1]),
    "pets": ([0, 1], [1, 0]),
    "food101": ([0, 0, 1, 1], [0, 1]),
    "sun397": ([1, 0], [0]),
    "inat2018": ([1, 0, 1], [0, 1]),
    "inat2019": ([1, 0, 1], [0, 1]),
    "cog_l3": ([0, 1], [1]),
}


def settings(root: Path, **others) -> TransferConfig:
    return TransferConfig(data_dir=str(root), **others)


@pytest.mark.parametrize("name", LABELS)
def test_a_set_is_read_as_its_archive_lies(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.Flowers102, "_check_integrity", lambda _self: True)  # of the real files
    LAYOUTS[name](tmp_path)
    found = open_named(name, replace(NAMED[name], sizes=None), settings(tmp_path), download=False)
    assert (found.trainval.labels.tolist(), found.test.labels.tolist()) == LABELS[name]
    assert found.group == NAMED[name].group and found.classifier == NAMED[name].classifier
    for part in (found.trainval, found.test):
        assert all(part.image(position).shape == (8, 8, 3) for position in range(len(part)))
    assert len(found.class_names) > max(*LABELS[name][0], *LABELS[name][1])
    assert found.trainval.fingerprint != found.test.fingerprint


def test_eurosat_tests_on_as_many_of_each_class_drawn_by_the_seed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(transfer_table, "EUROSAT_TEST_PER_CLASS", 2)
    eurosat(tmp_path)
    entry = replace(NAMED["eurosat"], sizes=(8, 4))  # of 4 and 8 images

    def names(seed: int) -> tuple[list[str], list[str]]:
        found = open_named("eurosat", entry, settings(tmp_path, split_seed=seed), download=False)
        assert np.bincount(found.test.labels).tolist() == [2, 2]
        return [path.name for path in found.trainval.files], [path.name for path in found.test.files]

    train, test = names(0)
    assert len(set(train + test)) == 12
    assert names(0) == (train, test) and names(1) != (train, test)


@pytest.mark.parametrize("name", NAMED)
def test_a_set_that_is_not_there_says_where_to_get_it_and_how_to_lay_it_out(name: str, tmp_path: Path):
    with pytest.raises(MissingDataError) as caught:
        open_named(name, NAMED[name], settings(tmp_path), download=False)
    said = str(caught.value)
    assert said.startswith(f"{name}: get it from {NAMED[name].source} and lay it out under {str(tmp_path)!r}")
    assert ("give --download" in said) == (NAMED[name].download is not None)
    assert "download=True" not in said and "\n" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "published"), [("aircraft", "6667 and 3333"), ("cog_l3", "1095203 and 50000")])
def test_a_part_of_a_set_is_not_taken_for_the_set(name: str, published: str, tmp_path: Path):
    LAYOUTS[name](tmp_path)
    with pytest.raises(MissingDataError, match=f"found 2 images to train on and 1 to test on instead of {published}"):
        open_named(name, NAMED[name], settings(tmp_path), download=False)


def test_an_image_of_a_list_that_is_not_there_is_named(tmp_path: Path):
    LAYOUTS["inat2018"](tmp_path)
    (tmp_path / "inat2018/train_val2018/val/1.jpg").unlink()
    with pytest.raises(MissingDataError, match=r"val/1\.jpg"):
        open_named("inat2018", replace(NAMED["inat2018"], sizes=None), settings(tmp_path), download=False)


def test_a_download_is_asked_for_and_its_failure_is_named(tmp_path: Path):
    asked: list[Path] = []

    def unreachable(root: Path) -> None:
        asked.append(root)
        raise OSError("no route to host")

    entry = replace(NAMED["pets"], download=unreachable)
    with pytest.raises(MissingDataError, match="no route to host"):
        open_named("pets", entry, settings(tmp_path), download=True)
    assert asked == [tmp_path]
    with pytest.raises(MissingDataError, match="no download for it"):
        open_named("cars", NAMED["cars"], settings(tmp_path), download=True)


@pytest.mark.parametrize("name", ["cars", "sun397", "inat2018", "cog_l3"])
def test_a_set_without_a_download_is_read_where_it_lies(name: str, tmp_path: Path):
    LAYOUTS[name](tmp_path)
    found = open_named(name, replace(NAMED[name], sizes=None), settings(tmp_path), download=True)
    assert found.trainval.labels.tolist() == LABELS[name][0]


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [("cars", "stanford_cars/cars_test_annos_withlabels.mat", b""), ("inat2018", "inat2018/train2018.json", b"[1]")],
)
def test_lists_that_are_no_lists_leave_the_set_out(name: str, file: str, content: bytes, tmp_path: Path):
    LAYOUTS[name](tmp_path)
    ((path),) = tmp_path.rglob(file.rpartition("/")[2])
    path.write_bytes(content)
    with pytest.raises(MissingDataError, match=f"^{name}: get it from"):
        open_named(name, replace(NAMED[name], sizes=None), settings(tmp_path), download=False)


def test_a_download_that_was_cut_off_says_what_to_remove(tmp_path: Path):
    def cut(_root: Path) -> None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    with pytest.raises(MissingDataError, match="remove its archive and its folder first .Compressed file ended"):
        open_named("aircraft", replace(NAMED["aircraft"], download=cut), settings(tmp_path), download=True)


def test_the_table_is_the_papers_fifteen():
    assert tuple(NAMED) == (*SMALL_SETS, *LONG_TAIL_SETS, *COG_SETS) and len(NAMED) == 15


def test_digits_are_halved_class_by_class():
    found = open_built_in("digits", TransferConfig(), None)
    assert len(found.trainval) + len(found.test) == 1797
    counts = [np.bincount(part.labels, minlength=10) for part in (found.trainval, found.test)]
    assert abs(counts[0] - counts[1]).max() <= 1
    assert found.trainval.images.shape[1:] == (8, 8, 3) and found.trainval.images.max() == 255
    other = open_built_in("digits", TransferConfig(split_seed=1), None)
    assert other.trainval.fingerprint != found.trainval.fingerprint


def test_fashion_mnist_keeps_its_own_split_and_a_classifier_can_be_named():
    found = open_built_in("fashion_mnist", TransferConfig(classifier="lbfgs"), None)
    assert (len(found.trainval), len(found.test), found.classifier) == (60_000, 10_000, "lbfgs")
    assert found.trainval.fingerprint != found.test.fingerprint
