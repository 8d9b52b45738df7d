"""A study: which trainings its axes ask for, each once, and the real twin of every size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import PRESETS, load_yaml, nearest, validate, with_overrides
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen

TWIN_AXIS = "real"
"""The axis of the cells that train on real images: one at every size of the others."""


class PaperFigure(Frozen):
    """What the paper reports for a setting."""

    top1: float = Field(ge=0, le=1)
    """Top-1 accuracy on the validation images, 0..1."""
    certainty: Literal["certain", "second-hand", "inferred"]
    """`certain` was read in the authors' material, `second-hand` in works that quote it, `inferred` from those."""


class StudyConfig(Frozen):
    """What a study varies, as its YAML holds it."""

    seeds: list[int] = Field([0, 1, 2], min_length=1)
    """Values of `train.seed`; every cell is trained once with each."""
    lengths: dict[int, list[str]] = Field({})
    """Images per class -> KEY=VALUE words of a training on that many, e.g. epochs; other sizes keep the preset's."""
    axes: dict[str, dict[str, list[str]]] = Field(min_length=1)
    """Axis -> label -> KEY=VALUE words laid over the preset. The words win over the preset and over `lengths`."""
    twins: bool = True
    """Train a twin on as many real images for every size of the axes."""
    twin_sizes: list[int] | None = None
    """Only these sizes have a twin; default: all. There are only so many real images."""
    needs_real_data: bool = False
    """Leave the twins out, and do without their gap, until `train.real_data` says where real images are."""
    paper: dict[str, dict[str, PaperFigure]] = Field({})
    """Axis -> label -> what the paper says of this setting; shown beside what is measured, never used."""

    @model_validator(mode="after")
    def _paper_speaks_of_settings(self) -> StudyConfig:
        for axis, figures in self.paper.items():
            if unknown := sorted(set(figures) - set(self.axes.get(axis, {}))):
                raise ValueError(f"paper.{axis}: {unknown[0]!r} is no setting of that axis")
        return self


@dataclass(frozen=True)
class Cell:
    """One setting of a study, trained with every seed.

    Args:
        config: the run, with the first seed.
        places: (axis, label) of everything this cell stands for.
    """

    config: RunConfig
    places: tuple[tuple[str, str], ...]

    def trial(self, seed: int) -> RunConfig:
        """The run of one seed."""
        return self.config.model_copy(update={"train": self.config.train.model_copy(update={"seed": seed})})

    @property
    def is_real(self) -> bool:
        """Whether it trains on real images."""
        return self.config.train.data == "real"

    @property
    def name(self) -> str:
        """For log lines, e.g. `guidance=2 recipe=c, h_c images=1x`."""
        return " ".join(f"{axis}={label}" for axis, label in self.places)


@dataclass(frozen=True)
class StudyPlan:
    """The cells of a study.

    Args:
        cells: different settings, synthetic and real, in the order they run: small ones first.
        seeds: seeds of each.
        axes: axis -> its (label, cell) pairs in the order of the study's file; the real twins last.
        paper: what the paper says, by (axis, label).
    """

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    axes: dict[str, list[tuple[str, Cell]]]
    paper: Mapping[tuple[str, str], PaperFigure] = field(default_factory=dict)

    def trials(self) -> list[tuple[Cell, int]]:
        """Every (cell, seed), cell by cell."""
        return [(cell, seed) for cell in self.cells for seed in self.seeds]

    def twin_of(self, cell: Cell) -> Cell | None:
        """The cell of real images with as many images as this one; None in a study without twins."""
        size = cell.config.images_per_class
        return next((c for c in self.cells if c.is_real and c.config.images_per_class == size), None)

    def image_sets(self) -> list[RunConfig]:
        """One run per recipe, with the most images any cell wants of it: smaller cells read a prefix."""
        largest: dict[object, RunConfig] = {}
        for config in (cell.config for cell in self.cells if not cell.is_real):
            known = largest.get((config.classes, config.recipe))
            if known is None or config.images_per_class > known.images_per_class:
                largest[config.classes, config.recipe] = config
        return list(largest.values())


def study_names() -> list[str]:
    """Names of the studies that ship."""
    return sorted(path.stem for path in (PRESETS / "studies").glob("*.yaml"))


def load_study(name_or_path: str) -> StudyConfig:
    """A study that ships (by name) or a YAML file (by path). Raises `InputError`."""
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    elif name_or_path in study_names():
        path = PRESETS / "studies" / f"{name_or_path}.yaml"
    else:
        raise InputError(
            f"--study {name_or_path!r} is unknown{nearest(name_or_path, study_names())}, or give a .yaml path"
        )
    study = validate(StudyConfig, load_yaml(path), f"study {str(path)!r}: ")
    if TWIN_AXIS in study.axes:
        raise InputError(
            f"study {str(path)!r}: the axis {TWIN_AXIS!r} is made by itself, one twin per size; rename yours"
        )
    return study


def plan_study(study: StudyConfig, base: RunConfig, only: Sequence[str] = ()) -> StudyPlan:
    """Lay the axes over a preset.

    Args:
        study: what to vary.
        base: the run all cells start from.
        only: axes to keep, each `AXIS` or `AXIS=LABEL`; none keeps all.

    Raises:
        InputError: an unknown axis, or words that make no valid run.
    """
    layout = {
        axis: [(label, _cell_config(study, base, words)) for label, words in settings.items()]
        for axis, settings in _kept(study, only).items()
    }
    sizes = sorted({config.images_per_class for pairs in layout.values() for _, config in pairs})
    if study.twin_sizes is not None:
        sizes = [size for size in sizes if size in study.twin_sizes]
    if study.twins and sizes and not (study.needs_real_data and base.train.real_data is None):
        layout[TWIN_AXIS] = [
            (f"{size} per class", _cell_config(study, base, ["train.data=real", f"images_per_class={size}"]))
            for size in sizes
        ]
    places: dict[RunConfig, list[tuple[str, str]]] = {}
    for axis, pairs in layout.items():
        for label, config in pairs:
            places.setdefault(config, []).append((axis, label))
    cells = {config: Cell(config, tuple(found)) for config, found in places.items()}
    return StudyPlan(
        cells=tuple(sorted(cells.values(), key=lambda cell: cell.config.images_per_class)),
        seeds=tuple(study.seeds),
        axes={axis: [(label, cells[config]) for label, config in pairs] for axis, pairs in layout.items()},
        paper={(axis, label): figure for axis, found in study.paper.items() for label, figure in found.items()},
    )


def _kept(study: StudyConfig, only: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """The settings that `--only` leaves. Raises `InputError`."""
    kept: dict[str, dict[str, list[str]]] = {}
    for word in only:
        axis, one, label = word.partition("=")
        if axis not in study.axes:
            raise InputError(f"--only {word!r}: {axis!r} is no axis of this study{nearest(axis, study.axes)}")
        if one and label not in study.axes[axis]:
            raise InputError(f"--only {word!r}: {axis} has no such setting{nearest(label, study.axes[axis])}")
        kept.setdefault(axis, {}).update({label: study.axes[axis][label]} if one else study.axes[axis])
    return kept or study.axes


def _cell_config(study: StudyConfig, base: RunConfig, words: Iterable[str]) -> RunConfig:
    """Preset < length of its size < the cell's own words; with the first seed."""
    words = [*words, f"train.seed={study.seeds[0]}"]
    size = with_overrides(base, words).images_per_class
    return with_overrides(base, [*study.lengths.get(size, []), *words])
