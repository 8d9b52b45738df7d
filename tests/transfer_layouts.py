"""Tiny copies of the named data sets, laid out as their archives are: one image per line of their own lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path: Path, value: int) -> str:
    """An 8x8 image of one grey; its path as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return str(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    text(data / "variants.txt", "707-320", "A300 B4")
    text(data / "images_variant_trainval.txt", "0001 707-320", "0002 A300 B4")
    text(data / "images_variant_test.txt", "0003 A300 B4")
    for number in (1, 2, 3):
        picture(data / "images" / f"000{number}.jpg", number)


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General", "Acura"], object)})
    for part, labels, path in (
        ("train", [2, 1], "devkit/cars_train_annos.mat"),
        ("test", [1, 2, 2], "cars_test_annos_withlabels.mat"),
    ):
        rows = np.array([(f"{n}.jpg", label) for n, label in enumerate(labels)], [("fname", object), ("class", object)])
        savemat(folder / path, {"annotations": rows})
        for number in range(len(labels)):
            picture(folder / f"cars_{part}" / f"{number}.jpg", number)


def dtd(root: Path) -> None:
    data = root / "dtd" / "dtd"
    for part, names in (("train", "a"), ("val", "b"), ("test", "cd")):
        text(
            data / "labels" / f"{part}1.txt",
            *(f"{kind}/{kind}_{n}.jpg" for n in names for kind in ("braided", "dotted")),
        )
        for name in names:
            for kind in ("braided", "dotted"):
                picture(data / "images" / kind / f"{kind}_{name}.jpg", ord(name))


def eurosat(root: Path) -> None:
    for label, kind in enumerate(("AnnualCrop", "River")):
        for number in range(4 + 4 * label):
            picture(root / "eurosat" / "2750" / kind / f"{kind}_{number}.jpg", 10 * label + number)


def flowers(root: Path) -> None:
    folder = root / "flowers-102"
    for number in range(1, 5):
        picture(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([1, 2, 1, 102])})
    savemat(folder / "setid.mat", {"trnid": np.array([2, 4]), "valid": np.array([3, 4]), "tstid": np.array([1, 2])})


def pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    text(folder / "annotations" / "trainval.txt", "Abyssinian_1 1 1 1", "beagle_7 2 2 1")
    text(folder / "annotations" / "test.txt", "beagle_8 2 2 1", "Abyssinian_2 1 1 1")
    for name in ("Abyssinian_1", "beagle_7", "beagle_8", "Abyssinian_2"):
        picture(folder / "images" / f"{name}.jpg", len(name))


def food101(root: Path) -> None:
    folder = root / "food-101"
    for part, numbers in (("train", (1, 2)), ("test", (3,))):
        lists = {kind: [f"{kind}/{number}" for number in numbers] for kind in ("apple_pie", "waffles")}
        text(folder / "meta" / f"{part}.json", json.dumps(lists))
        for names in lists.values():
            for name in names:
                picture(folder / "images" / f"{name}.jpg", numbers[0])


def sun397(root: Path) -> None:
    folder = root / "SUN397"
    text(folder / "ClassName.txt", "/a/abbey", "/a/apse/indoor")
    text(folder / "Training_01.txt", "/a/apse/indoor/sun_1.jpg", "/a/abbey/sun_2.jpg")
    text(folder / "Testing_01.txt", "/a/abbey/sun_3.jpg")
    for name in ("a/apse/indoor/sun_1", "a/abbey/sun_2", "a/abbey/sun_3"):
        picture(folder / f"{name}.jpg", 1)


def inat(root: Path, year: int) -> None:
    folder = root / f"inat{year}"
    categories = [{"id": 0, "name": "Aves"}, {"id": 1, "name": "Fungi"}]
    for part, labels in (("train", (1, 0, 1)), ("val", (0, 1))):
        images = [{"id": 50 + n, "file_name": f"train_val{year}/{part}/{n}.jpg"} for n in range(len(labels))]
        notes = [{"image_id": 50 + n, "category_id": label} for n, label in enumerate(labels)]
        everything = {"images": images, "annotations": list(reversed(notes)), "categories": categories}
        text(folder / f"{part}{year}.json", json.dumps(everything))
        for image in images:
            picture(folder / image["file_name"], 1)


def cog(root: Path, name: str) -> None:
    text(root / name / "trainval.txt", "images/a b.jpg 0", "images/c.jpg 1")
    text(root / name / "test.txt", "images/d.jpg 1")
    for stem in ("a b", "c", "d"):
        picture(root / name / "images" / f"{stem}.jpg", 1)


LAYOUTS = {
    "aircraft": aircraft,
    "cars": cars,
    "dtd": dtd,
    "eurosat": eurosat,
    "flowers": flowers,
    "pets": pets,
    "food101": food101,
    "sun397": sun397,
    "inat2018": lambda root: inat(root, 2018),
    "inat2019": lambda root: inat(root, 2019),
    "cog_l3": lambda root: cog(root, "cog_l3"),
}
