"""The test sets that a config names: those that are there, opened, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.classes import ClassTable
from pipeline.core.errors import InputError, MissingDataError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.real_images import LabelledImages, open_fashion_mnist, open_images
from pipeline.core.test_sets import FASHION_MNIST, IN_DISTRIBUTION, SetSpec, known_sets, spec_of
from pipeline.core.user_files import user_path

MAIN = "test_set"
"""Name of a main set that is given as a path."""


@dataclass(frozen=True)
class OpenSet:
    """A test set that is there.

    Args:
        spec: what it is.
        images: of the classes of the run.
        overlap: labels of the run's classes that it shows (an anomaly set: that it is told apart from), ascending.
        num_classes: of the run.
    """

    spec: SetSpec
    images: LabelledImages
    overlap: list[int]
    num_classes: int

    @property
    def is_masked(self) -> bool:
        """It shows only some of the run's classes, so there is a second score among only those."""
        return len(self.overlap) < self.num_classes


def main_name(settings: EvaluateConfig) -> str:
    """Name of the main set that a config asks for."""
    return settings.test_set if settings.test_set in {*dict(settings.test_sets), *known_sets(), FASHION_MNIST} else MAIN


def open_test_sets(
    settings: EvaluateConfig, classes: ClassTable, data_dir: str | None
) -> tuple[dict[str, OpenSet], dict[str, str]]:
    """Every set of a config, the main one first, and for each that is not there a line that says where to get it.

    When the main one is not there, the first other one with an accuracy takes its place.

    Raises:
        InputError: no set is there that gives an accuracy; or what is there is not what it is said to be.
    """
    others = dict(settings.test_sets)
    if MAIN in others:
        raise InputError(f"evaluate.test_sets: {MAIN!r} is the name of the main set; give this one another")
    main = main_name(settings)
    places = {main: settings.test_set if main == MAIN else others.get(main), **others}
    found: dict[str, OpenSet] = {}
    missing: dict[str, str] = {}
    for name, where in places.items():
        spec = spec_of(name)
        if name == FASHION_MNIST:
            try:
                images = open_fashion_mnist(classes, where or data_dir)
            except MissingDataError as error:
                missing[name] = str(error)
                continue
        elif (why := _not_there(spec, where)) is not None:
            missing[name] = why
            continue
        else:
            assert where is not None
            images = open_images(spec, where, classes)
        found[name] = OpenSet(spec, images, spec.labels(classes), len(classes))
    anomalies = [name for name, one in found.items() if one.spec.metric == "anomaly"]
    if anomalies and IN_DISTRIBUTION not in found:
        for name in anomalies:
            del found[name]
            missing[name] = f"{name} is told apart from {IN_DISTRIBUTION}, which is not there; give that, too"
    if not found:
        raise InputError("; ".join(missing.values()))
    return found, missing


def _not_there(spec: SetSpec, where: str | None) -> str | None:
    get = f" ({spec.get})" if spec.get else ""
    if where is None:
        return f"{spec.name} has no place; give --set evaluate.test_sets.{spec.name}=FOLDER{get}"
    key = "evaluate.test_set" if spec.name == MAIN else f"evaluate.test_sets.{spec.name}"
    root = user_path(where, key)
    if root.is_dir() or (root.is_file() and root.suffix == ".parquet"):
        return None
    return f"test set {where!r} is no folder and no .parquet; give {key} one that is there{get}"
