"""The named data sets: the paper's 15 (8 small, 2 long-tailed, 5 CoG levels) and two that need no download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.class_draws import drawn_from_each_class
from pipeline.core.datasets import IDX_SHA256, as_rgb32, load_fashion_mnist
from pipeline.core.identity import content_hash
from pipeline.core.real_images import ArrayImages
from pipeline.core.transfer_config import COG_SETS, TransferConfig
from pipeline.core.transfer_datasets import (
    Entry,
    Split,
    TransferSet,
    concatenated,
    read_inaturalist,
    read_lines,
    stratified_halves,
)
from pipeline.core.transfer_folders import read_lists

Parts = tuple[Split, Split, Sequence[str]]
SMALL, LONG_TAIL, COG, HERE = "small", "long tail", "CoG", "no download"
DIGITS, FASHION_MNIST = "digits", "fashion_mnist"
EUROSAT_TEST_PER_CLASS = 810
COG_TRAINVAL = (1_118_804, 1_115_788, 1_095_203, 1_107_128, 1_091_654)
"""Images of each CoG level; to test on, 50 of each of its 1,000 classes."""


def _aircraft(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import FGVCAircraft

    train, test = (FGVCAircraft(str(root), part, "variant") for part in ("trainval", "test"))
    return _files(train), _files(test), train.classes


def _cars(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import StanfordCars

    train, test = (StanfordCars(str(root), part) for part in ("train", "test"))
    return _samples(train._samples), _samples(test._samples), train.classes


def _dtd(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import DTD

    train, val, test = (DTD(str(root), part, partition=1) for part in ("train", "val", "test"))
    return concatenated(_files(train), _files(val)), _files(test), train.classes


def _eurosat(root: Path, seed: int) -> Parts:
    """Without a published split: 810 of each class to test on, as in trex, which of them drawn by the seed."""
    from torchvision.datasets import EuroSAT

    whole = EuroSAT(str(root))
    samples = sorted(whole.samples)
    labels = np.array([label for _, label in samples], np.int64)
    is_test = drawn_from_each_class(labels, lambda _count: EUROSAT_TEST_PER_CLASS, seed)
    train, test = ([samples[row] for row in np.flatnonzero(rows)] for rows in (~is_test, is_test))
    return _samples(train), _samples(test), whole.classes


def _flowers(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import Flowers102

    train, val, test = (_files(Flowers102(str(root), part)) for part in ("train", "val", "test"))
    return concatenated(train, val), test, [str(number) for number in range(1, 103)]


def _pets(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import OxfordIIITPet

    train, test = (OxfordIIITPet(str(root), part) for part in ("trainval", "test"))
    return (train._images, train._labels), (test._images, test._labels), train.classes


def _food101(root: Path, _seed: int) -> Parts:
    from torchvision.datasets import Food101

    train, test = (Food101(str(root), part) for part in ("train", "test"))
    return _files(train), _files(test), train.classes


def _sun397(root: Path, _seed: int) -> Parts:
    """torchvision knows the images but not the paper's partition 1, which is two text files beside them."""
    folder = root / "SUN397"
    classes = read_lines(folder / "ClassName.txt")
    label = {name: number for number, name in enumerate(classes)}

    def split(part: str) -> Split:
        lines = read_lines(folder / f"{part}_01.txt")
        return [folder / line.lstrip("/") for line in lines], [label[line.rpartition("/")[0]] for line in lines]

    return split("Training"), split("Testing"), [name[3:] for name in classes]


def _files(found: Any) -> Split:
    """torchvision gives image by image; what is needed are its lists of files and labels."""
    return [Path(path) for path in found._image_files], found._labels


def _samples(pairs: Sequence[tuple[str, int]]) -> Split:
    return [Path(path) for path, _ in pairs], [int(label) for _, label in pairs]


def _fetch(name: str, **options: Any) -> Callable[[Path], object]:
    def fetch(root: Path) -> object:
        import torchvision.datasets

        return getattr(torchvision.datasets, name)(str(root), download=True, **options)

    return fetch


def _inat(year: int, root: Path, _seed: int) -> Parts:
    return read_inaturalist(root / f"inat{year}", year)


def _cog(name: str, root: Path, _seed: int) -> Parts:
    return read_lists(root / name)


NAMED: dict[str, Entry] = {
    "aircraft": Entry(
        SMALL, "lbfgs", (6667, 3333), "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
        "fgvc-aircraft-2013b/data/", _aircraft, _fetch("FGVCAircraft"),
    ),
    "cars": Entry(
        SMALL, "lbfgs", (8144, 8041), "a copy of Stanford Cars (its first address is gone; e.g. on Kaggle)",
        "stanford_cars/{cars_train/, cars_test/, devkit/, cars_test_annos_withlabels.mat}", _cars,
    ),
    "dtd": Entry(
        SMALL, "lbfgs", (3760, 1880), "https://www.robots.ox.ac.uk/~vgg/data/dtd/", "dtd/dtd/{images/, labels/}",
        _dtd, _fetch("DTD"),
    ),
    "eurosat": Entry(
        SMALL, "lbfgs", (18900, 8100), "https://github.com/phelber/EuroSAT (RGB)", "eurosat/2750/CLASS/",
        _eurosat, _fetch("EuroSAT"),
    ),
    "flowers": Entry(
        SMALL, "lbfgs", (2040, 6149), "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
        "flowers-102/{jpg/, imagelabels.mat, setid.mat}", _flowers, _fetch("Flowers102"),
    ),
    "pets": Entry(
        SMALL, "lbfgs", (3680, 3669), "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        "oxford-iiit-pet/{images/, annotations/}", _pets, _fetch("OxfordIIITPet"),
    ),
    "food101": Entry(
        SMALL, "lbfgs", (75750, 25250), "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        "food-101/{images/, meta/}", _food101, _fetch("Food101"),
    ),
    "sun397": Entry(
        SMALL, "lbfgs", (19850, 19850), "https://vision.princeton.edu/projects/2010/SUN/ (images and Partitions.zip)",
        "SUN397/{a/ … z/, ClassName.txt, Training_01.txt, Testing_01.txt}", _sun397,
    ),
    **{
        f"inat{year}": Entry(
            LONG_TAIL, "sgd", sizes, f"https://github.com/visipedia/inat_comp/tree/master/{year}",
            f"inat{year}/{{train{year}.json, val{year}.json, train_val{year}/}}", partial(_inat, year),
        )
        for year, sizes in ((2018, (437513, 24426)), (2019, (265213, 3030)))
    },
    **{
        name: Entry(
            COG, "sgd", (trainval, 50000), "ImageNet-21K (winter 2021) and the level's lists of naver/cog",
            f"{name}/{{trainval.txt, test.txt}}: lines of an image's path from there and its label",
            partial(_cog, name),
        )
        for name, trainval in zip(COG_SETS, COG_TRAINVAL, strict=True)
    },
}  # fmt: skip
"""By name. Cars, SUN397 (its partition), iNaturalist and CoG have no download here."""


def open_built_in(name: str, settings: TransferConfig, data_dir: str | None) -> TransferSet:
    """`digits` (scikit-learn's, 8x8, half of each class is the test set) or `fashion_mnist` (its own split).

    Args:
        name: which one.
        settings: the split's seed and the classifier.
        data_dir: folder of Fashion-MNIST, as for `datasets.find_fashion_mnist`.

    Raises:
        MissingDataError: Fashion-MNIST is not there.
    """
    if name == FASHION_MNIST:
        hashed = content_hash(IDX_SHA256)
        parts = []
        for split in ("train", "test"):
            images, labels = load_fashion_mnist(data_dir, split)
            rgb = as_rgb32(images)
            parts.append(ArrayImages(f"{name} {split}", content_hash([hashed, split]), rgb, labels.astype(np.int64)))
        kind = "sgd" if settings.classifier == "auto" else settings.classifier
        return TransferSet(name, HERE, kind, parts[0], parts[1], [str(label) for label in range(10)])
    from sklearn.datasets import load_digits

    found = load_digits()  # UCI's test part: 1,797 digits of 13 people, 8x8, 0..16
    grey = np.round(found.images * (255 / 16)).astype(np.uint8)
    rgb, labels = np.repeat(grey[..., None], 3, axis=3), found.target.astype(np.int64)
    is_test = stratified_halves(labels, 0.5, settings.split_seed)
    trainval, test = (
        ArrayImages(f"digits {part}", content_hash(["digits", part, settings.split_seed]), rgb[rows], labels[rows])
        for part, rows in (("trainval", ~is_test), ("test", is_test))
    )
    kind = "lbfgs" if settings.classifier == "auto" else settings.classifier
    return TransferSet(name, HERE, kind, trainval, test, [str(label) for label in range(10)])
