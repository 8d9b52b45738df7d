"""What a study varies, as its YAML file says it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.core.config_loading import PRESETS, load_yaml, nearest, validate
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen
from pipeline.core.train_config import Seed

TWIN_AXIS = "real"
"""The axis of the cells that train on real images: one at every size of the others."""


class PaperFigure(Frozen):
    """What the paper reports for a setting."""

    top1: float = Field(ge=0, le=1)
    """Top-1 accuracy on the validation images, 0..1."""
    top5: float | None = Field(None, ge=0, le=1)
    """Top-5 accuracy on them."""
    top5_certainty: Literal["certain", "second-hand", "inferred"] | None = None
    """Where that of `top5` is another one than `certainty`."""
    sketch: float | None = Field(None, ge=0, le=1)
    """Top-1 accuracy on ImageNet-Sketch."""
    r: float | None = Field(None, ge=0, le=1)
    """On ImageNet-R."""
    a: float | None = Field(None, ge=0, le=1)
    """On ImageNet-A."""
    certainty: Literal["certain", "second-hand", "inferred"]
    """`certain` was read in the authors' material, `second-hand` in works that quote it, `inferred` from those."""


class StudyConfig(Frozen):
    """What a study varies, as its YAML holds it."""

    seeds: list[Seed] = Field([0, 1, 2], min_length=1)
    """Values of `train.seed`, each once; every cell is trained once with each."""
    base: list[str] = Field([])
    """KEY=VALUE words laid over the preset for every cell and every twin, e.g. `train=@paper_rn50`; what the command
    line sets wins over them."""
    lengths: dict[int, list[str]] = Field({})
    """Images per class -> KEY=VALUE words of a training on that many, e.g. epochs; other sizes keep the preset's. What
    the command line sets wins over them."""
    axes: dict[str, dict[str, list[str]]] = Field(min_length=1)
    """Axis -> label, one at least -> KEY=VALUE words laid over the preset. They win over all else, the command line
    too."""
    twins: bool = True
    """Train a twin on as many real images for every size of the axes."""
    twin_sizes: list[int] | None = None
    """Images per class of the twins; default: every size has one. There are only so many real images: a size above
    them stands beside the largest, one below all has no twin."""
    needs_real_data: bool = False
    """Leave the twins out, and do without their gap, until `train.real_data` says where real images are."""
    paper: dict[str, dict[str, PaperFigure]] = Field({})
    """Axis -> label -> what the paper says of this setting; shown beside what is measured, never used."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if twice := [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) > 1]:
            raise ValueError(f"{twice[0]} stands there more than once, and would count one training twice")
        return seeds

    @field_validator("axes")
    @classmethod
    def _axes_have_settings(cls, axes: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
        if empty := [axis for axis, settings in axes.items() if not settings]:
            raise ValueError(f"{empty[0]!r} has no setting; give one, e.g. {{as it is: []}}, or leave the axis out")
        return axes

    @model_validator(mode="after")
    def _paper_speaks_of_settings(self) -> StudyConfig:
        for axis, figures in self.paper.items():
            if unknown := sorted(set(figures) - set(self.axes.get(axis, {}))):
                raise ValueError(f"paper.{axis}: {unknown[0]!r} is no setting of that axis")
        return self


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
