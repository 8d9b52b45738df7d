"""A sweep as its YAML holds it: which settings are searched, how, for how long, and what a trial is compared on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.core.config_loading import PRESETS, load_yaml, nearest, validate
from pipeline.core.errors import InputError
from pipeline.core.frozen import Frozen
from pipeline.core.model_identity import WHERE_AND_HOW

IDENTITY, RESULT = "sweep.json", "result.json"
"""Of a sweep's folder: what it is, written first, and its answer, written last."""
SEARCHED = ("recipe", "train", "images_per_class")
"""Keys of `RunConfig` that a sweep may vary: those that decide images and models."""
NEVER_SEARCHED = frozenset({"train.data", *(f"train.{name}" for name in WHERE_AND_HOW)})
"""They say where and how a model is trained, not which; `base` may set them for all trials."""

INSIDE = (5**0.5 - 1) / 2
"""Where a range is tried between its ends: an irrational share of it, so that no whole number lies there."""
DIVIDES = 1e-9
"""How far from a whole number of steps a range may be: 0.1 is no binary number."""
EXAMPLE = {"recipe": "guidance_scale", "train": "learning_rate"}


class Domain(Frozen):
    """The values of one setting; exactly one of `choice`, `uniform` and `loguniform`."""

    choice: list[Any] | None = Field(None, min_length=1)
    """Any values that the setting takes, mixtures too."""
    uniform: tuple[float, float] | None = None
    """Lowest and highest number."""
    loguniform: tuple[float, float] | None = None
    """Lowest and highest number, even on a logarithmic scale."""
    step: float | None = Field(None, gt=0)
    """Of `uniform`, whose range it divides; whole bounds and step give whole numbers."""
    when: dict[str, Any] = Field({})
    """KEY: VALUE, or a list of values, of settings above this one: only then this setting is searched."""

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        kinds = [name for name in ("choice", "uniform", "loguniform") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform")
        if (bounds := self.uniform or self.loguniform) and not bounds[0] < bounds[1]:
            raise ValueError(f"the lower bound {bounds[0]:g} must be below the higher {bounds[1]:g}")
        if self.loguniform and self.loguniform[0] <= 0:
            raise ValueError("loguniform needs bounds above 0")
        if self.step is not None and self.uniform is None:
            raise ValueError("step goes with uniform only")
        return self

    def check_step(self) -> None:
        """Raises `InputError` when steps from the lower bound miss the higher one, which no trial would then try.

        Not a part of the model: sweeps that ended before this was checked are still promoted.
        """
        if self.step is None or self.uniform is None:
            return
        low, high = self.uniform
        steps = (high - low) / self.step
        if abs(steps - round(steps)) <= DIVIDES and round(steps) > 0:
            return
        ends = [
            f"[{low:.10g}, {low + count * self.step:.10g}]" for count in (math.floor(steps), math.ceil(steps)) if count
        ]
        raise InputError(
            f"step {self.step:.10g} does not divide {low:.10g} to {high:.10g}, so {high:.10g} would never be tried; "
            f"give uniform: {' or '.join(ends)}, or step: {high - low:.10g} divided by a whole number"
        )

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are whole ones."""
        parts = (*(self.uniform or ()), self.step)
        return self.uniform is not None and all(part is not None and float(part).is_integer() for part in parts)

    def samples(self) -> list[Any]:
        """`ends`, and of a range a value inside it: bounds may be whole where what lies between them is not."""
        if self.choice is not None:
            return self.choice
        low, high = self.uniform or self.loguniform or (0.0, 0.0)
        inside = low + self.step if self.step is not None else low + (high - low) * INSIDE
        return [*self.ends(), int(inside) if self.is_whole else inside]

    def ends(self) -> list[Any]:
        """Values that must be valid for all of the domain to be."""
        if self.choice is not None:
            return self.choice
        bounds = self.uniform or self.loguniform or ()
        return [int(bound) for bound in bounds] if self.is_whole else list(bounds)

    def applies(self, point: dict[str, Any]) -> bool:
        """Whether the setting is searched beside these values of the settings above it."""
        wanted = {key: value if isinstance(value, list) else [value] for key, value in self.when.items()}
        return all(key in point and point[key] in values for key, values in wanted.items())


class ValidationConfig(Frozen):
    """Which images the trials of a sweep are compared on."""

    source: Literal["real", "synthetic"] = "real"
    """`real`: labelled real images beside the test set, e.g. the end of Fashion-MNIST's training split; they choose
    among trials, so the search, though no classifier, has seen real images. `synthetic`: images of the preset's own
    recipe from other seeds; no real image is seen, but recipes near the preset's look better than they are."""
    images_per_class: int = Field(100, ge=1)
    """How many; 100 of each of 10 classes give an accuracy of 0.8 a standard error of 0.013."""
    path: str | None = None
    """`real`, other classes than Fashion-MNIST's: a folder with a sub-folder per WNID, or Parquet."""


class EarlyStopping(Frozen):
    """ASHA (Li et al. 2018, arXiv:1810.05934): after 1x, 3x, 9x … epochs only the best third goes on."""

    min_epochs: int = Field(1, ge=1)
    """No trial is stopped before."""
    reduction_factor: float = Field(3, gt=1)
    """Of how many trials one goes on; also the growth of the epochs between two looks."""


class SweepConfig(Frozen):
    """What a sweep varies and how it searches."""

    search: Literal["grid", "random", "tpe"] = "tpe"
    """Every combination of `choice`s; draws; or Optuna's multivariate TPE."""
    num_trials: int = Field(20, ge=1)
    """Of `random` and `tpe`."""
    num_random_trials: int = Field(8, ge=1)
    """Of `tpe`: draws before the model of the space is used."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the search. The order in which trials end moves it too."""
    objectives: tuple[Literal["accuracy", "cost"], ...] = Field(("accuracy",), min_length=1)
    """`accuracy` is that on the validation images; with `cost` beside it the search is for a Pareto front. Cost: device
    seconds, those of the making of the trial's images and of its training; images that were there cost the same."""
    validation: ValidationConfig = ValidationConfig()
    """What trials are compared on."""
    early_stopping: EarlyStopping | None = None
    """Default: every trial trains to its end."""
    max_failures: int = Field(1, ge=0)
    """How often a failed trial is started again."""
    base: tuple[str, ...] = ()
    """KEY=VALUE words over the preset for every trial. A promotion takes over those that decide what a trial was, e.g.
    `train.data=mixed`, and neither its budget, e.g. fewer epochs, nor `evaluate.…` (`pipeline.core.promotion`)."""
    full: tuple[str, ...] = ()
    """KEY=VALUE words for a promoted trial (tune.promote), over preset and what lasts of `base`: the full budget."""
    space: dict[str, Domain] = Field(min_length=1)
    """Setting (dotted key of a run) -> its values."""

    @model_validator(mode="after")
    def _consistent(self) -> SweepConfig:
        above: list[str] = []
        for key, domain in self.space.items():
            if key.partition(".")[0] not in SEARCHED or key in NEVER_SEARCHED:
                raise ValueError(f"space.{key}: a sweep varies recipe.…, train.… and images_per_class, not this")
            if key in ("recipe", "train"):
                raise ValueError(f"space.{key}: name the settings that vary, e.g. {key}.{EXAMPLE[key]}, not all of it")
            if missing := [other for other in domain.when if other not in above]:
                raise ValueError(f"space.{key}.when: {missing[0]!r} is no setting above this one")
            if empty := [other for other, wanted in domain.when.items() if wanted == []]:
                raise ValueError(f"space.{key}.when: {empty[0]!r} has no value; give one, or leave it out")
            if self.search == "grid" and domain.choice is None:
                raise ValueError(f"space.{key}: grid needs choice; uniform and loguniform have no end")
            above.append(key)
        if "accuracy" not in self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives must be [accuracy] or [accuracy, cost]")
        return self


def sweep_names() -> list[str]:
    """Names of the sweeps that ship."""
    return sorted(path.stem for path in (PRESETS / "sweeps").glob("*.yaml"))


def load_sweep(name_or_path: str) -> SweepConfig:
    """A sweep that ships (by name) or a YAML file (by path).

    Raises:
        InputError: there is none such, or it is not valid, or a `step` misses the end of its range.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    elif name_or_path in sweep_names():
        path = PRESETS / "sweeps" / f"{name_or_path}.yaml"
    else:
        raise InputError(
            f"--space {name_or_path!r} is unknown{nearest(name_or_path, sweep_names())}, or give a .yaml path"
        )
    where = f"sweep {str(path)!r}: "
    sweep = validate(SweepConfig, load_yaml(path), where)
    for key, domain in sweep.space.items():
        try:
            domain.check_step()
        except InputError as error:
            raise InputError(f"{where}space.{key}: {error}") from error
    return sweep
