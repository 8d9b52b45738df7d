"""A study: which trainings its axes ask for, each once, and the real twin of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import nearest, with_overrides
from pipeline.core.errors import InputError
from pipeline.core.model_identity import LENGTH, OF_GENERATED, OF_MIXING
from pipeline.core.study_config import TWIN_AXIS, PaperFigure, StudyConfig
from pipeline.core.train_config import TrainConfig


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
        cells: different settings in the order they run: small ones first, a twin after the first cell that it is for.
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
        """The cell of as many real images of the same classes, trained alike; None without such a twin.

        Where there are not as many, it is that of the most there are, trained for as long as its size is.
        """
        size, alike = cell.config.images_per_class, _of_a_twin(cell.config, any_size=True)
        twins = [c for c in self.cells if c.is_real and _of_a_twin(c.config, any_size=True) == alike]
        exact = [c for c in twins if _of_a_twin(c.config) == _of_a_twin(cell.config)]
        fewer = [c for c in twins if c.config.images_per_class < size]
        return next(iter(exact), max(fewer, key=lambda c: c.config.images_per_class, default=None))

    def image_sets(self) -> list[RunConfig]:
        """One run per recipe, with the most images any cell wants of it: smaller cells read a prefix."""
        largest: dict[object, RunConfig] = {}
        for config in (cell.config for cell in self.cells if not cell.is_real):
            known = largest.get((config.classes, config.recipe))
            if known is None or config.images_per_class > known.images_per_class:
                largest[config.classes, config.recipe] = config
        return list(largest.values())


def plan_study(study: StudyConfig, base: RunConfig, only: Sequence[str] = (), given: Sequence[str] = ()) -> StudyPlan:
    """Lay the axes over a preset.

    Args:
        study: what to vary.
        base: the run all cells start from.
        only: axes to keep, each `AXIS` or `AXIS=LABEL`; none keeps all.
        given: KEY=VALUE words of the command line, which win over `study.base` and `study.lengths`.

    Raises:
        InputError: an unknown axis, or words that make no valid run.
    """
    base = with_overrides(base, [*study.base, *given])
    layout = {
        axis: [(label, _cell_config(study, base, given, words)) for label, words in settings.items()]
        for axis, settings in _kept(study, only).items()
    }
    if study.twins and not (study.needs_real_data and base.train.real_data is None):
        layout[TWIN_AXIS] = _twins(study, base, given, _kept(study, only))
    places: dict[RunConfig, list[tuple[str, str]]] = {}
    for axis, pairs in layout.items():
        for label, config in pairs:
            places.setdefault(config, []).append((axis, label))
    cells = {config: Cell(config, tuple(found)) for config, found in places.items()}
    return StudyPlan(
        cells=_ordered(cells.values()),
        seeds=tuple(study.seeds),
        axes={axis: [(label, cells[config]) for label, config in pairs] for axis, pairs in layout.items()},
        paper={(axis, label): figure for axis, found in study.paper.items() for label, figure in found.items()},
    )


def _of_a_twin(config: RunConfig, *, any_size: bool = False) -> dict[str, Any]:
    """What a run has in common with its twin, or with one of any size: fields of `RunConfig`, the seed left out."""
    alike: dict[str, Any] = {
        "data": "real",
        "seed": 0,
        **{name: TrainConfig.model_fields[name].default for name in OF_MIXING | OF_GENERATED},
    }
    kept = {name: getattr(config, name) for name in ("classes", "images_per_class", "data_dir", "evaluate")}
    if any_size:
        alike |= {name: TrainConfig.model_fields[name].default for name in LENGTH}
        del kept["images_per_class"]
    return {**kept, "train": config.train.model_copy(update=alike)}


def _twins(
    study: StudyConfig,
    base: RunConfig,
    given: Sequence[str],
    settings: Mapping[str, Mapping[str, Sequence[str]]],
) -> list[tuple[str, RunConfig]]:
    """(label, run) of the real twin of every setting, equal ones once, small ones first.

    Their recipe is that of the preset: real images have none, and settings of different recipes share a twin. A setting
    with extra images has no twin; one of more images than `study.twin_sizes` has, that of the largest below.
    """
    found: list[tuple[str, RunConfig]] = []
    for axis, words_by_label in settings.items():
        for label, words in words_by_label.items():
            config = _cell_config(study, base, given, words)
            size = _twin_size(study, config.images_per_class)
            if size is None or config.train.data == "real" or config.train.extra_images:
                continue
            alike = _of_a_twin(_cell_config(study, base, given, [*words, f"images_per_class={size}"]))
            if any(_of_a_twin(twin) == alike for _, twin in found):
                continue
            usual = _of_a_twin(_cell_config(study, base, given, [f"images_per_class={size}"]))
            name = f"{size} per class" + ("" if alike == usual else f", as {axis}={label}")
            train = alike["train"].model_copy(update={"seed": config.train.seed})
            found.append((name, base.model_copy(update={**alike, "train": train})))
    return sorted(found, key=lambda pair: pair[1].images_per_class)


def _twin_size(study: StudyConfig, size: int) -> int | None:
    """Images per class of the twin of a setting with `size`; None where there is none."""
    if study.twin_sizes is None:
        return size
    return max((one for one in study.twin_sizes if one <= size), default=None)


def _ordered(cells: Collection[Cell]) -> tuple[Cell, ...]:
    """Small ones first, a twin right after the first cell that it is for."""
    found: dict[Cell, None] = {}
    for cell in sorted(cells, key=lambda cell: cell.config.images_per_class):
        alike = _of_a_twin(cell.config)
        found |= dict.fromkeys([cell, *(c for c in cells if c.is_real and _of_a_twin(c.config) == alike)])
    return tuple(found)


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


def _cell_config(study: StudyConfig, base: RunConfig, given: Sequence[str], words: Iterable[str]) -> RunConfig:
    """Preset < length of its size < the command line < the cell's own words; with the first seed."""
    words = [*words, f"train.seed={study.seeds[0]}"]
    size = with_overrides(base, words).images_per_class
    return with_overrides(base, [*study.lengths.get(size, []), *given, *words])
