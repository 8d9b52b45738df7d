"""The points of a sweep's space: a grid of them, one drawn through Optuna, and the run that each one is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.core.config import RecipeConfig, RunConfig
from pipeline.core.config_loading import apply_overrides, merge, validate
from pipeline.core.errors import InputError
from pipeline.core.mixing import block_of
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import Domain, SweepConfig

if TYPE_CHECKING:
    from optuna.trial import Trial

Point = dict[str, Any]
"""Setting -> value; a setting whose condition does not hold is not there."""
MAX_GRID = 10_000
GRID = "grid"
"""Key of a whole grid point, as JSON text, in what a trial is given."""


def grid(sweep: SweepConfig) -> list[Point]:
    """Every combination of the choices, the last setting changing fastest. Raises `InputError` beyond `MAX_GRID`."""
    points: list[Point] = [{}]
    for key, domain in sweep.space.items():
        points = [longer for point in points for longer in _longer(point, key, domain)]
        if len(points) > MAX_GRID:
            raise InputError(f"the grid has more than {MAX_GRID:,} points; take search: random or tpe, or fewer values")
    return points


def _longer(point: Point, key: str, domain: Domain) -> Iterator[Point]:
    if not domain.applies(point):
        yield point
        return
    for value in domain.choice or ():
        yield {**point, key: value}


def suggest(sweep: SweepConfig, trial: Trial) -> dict[str, Any]:
    """One point in the words of Optuna's define-by-run: numbers, and choices as JSON text (`as_point` reads it)."""
    point: Point = {}
    suggested: dict[str, Any] = {}
    for key, domain in sweep.space.items():
        if not domain.applies(point):
            continue
        if domain.choice is not None:
            suggested[key] = trial.suggest_categorical(key, [json.dumps(value) for value in domain.choice])
            point[key] = json.loads(suggested[key])
            continue
        low, high = domain.uniform or domain.loguniform or (0.0, 0.0)
        if domain.is_whole:
            suggested[key] = trial.suggest_int(key, int(low), int(high), step=int(domain.step or 1))
        else:
            suggested[key] = trial.suggest_float(key, low, high, step=domain.step, log=domain.loguniform is not None)
        point[key] = suggested[key]
    return suggested


def as_point(sweep: SweepConfig, suggested: Mapping[str, Any]) -> Point:
    """What `suggest` gave, or a point of the grid, with choices as the values they stand for."""
    if GRID in suggested:
        point: Point = json.loads(suggested[GRID])
        return point
    return {
        key: json.loads(value) if sweep.space[key].choice is not None else value for key, value in suggested.items()
    }


def lay_over(
    config: RunConfig, words: tuple[str, ...], point: Mapping[str, Any], *, beneath: Mapping[str, Any] | None = None
) -> RunConfig:
    """A run with nested values `beneath`, then `--set` words and then a point laid over it. Raises `InputError`."""
    values = apply_overrides(merge(config.model_dump(mode="json"), beneath or {}), words)
    for key, value in point.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        values = merge(values, value)
    return validate(RunConfig, values)


def check_space(sweep: SweepConfig, base: RunConfig) -> None:
    """Raises `InputError` when a value of the space makes no valid run.

    Every value is laid over the preset alone, or with the settings that `when` ties it to; of a range its ends and
    one value between. What only a combination of others makes wrong ends that one trial.
    """
    for key in sweep.space:
        _check_conditions(sweep, key)
    recipes: set[RecipeConfig] = set()
    for key, domain in sweep.space.items():
        for value in domain.samples():
            try:
                config = lay_over(base, sweep.base, _completed(sweep, {**_beside(sweep, key), key: value}))
                if config.train.data == "mixed":
                    block_of(config.train)
                if config.recipe not in recipes:  # its templates, tables and models are there
                    resolve_recipe(config)
                recipes.add(config.recipe)
            except InputError as error:
                raise InputError(f"space.{key}: {error}") from error


def _check_conditions(sweep: SweepConfig, key: str) -> None:
    for other, wanted in sweep.space[key].when.items():
        choice = sweep.space[other].choice
        for value in wanted if isinstance(wanted, list) else [wanted]:
            if choice is not None and value not in choice:
                raise InputError(f"space.{key}: when: {other} is never {describe_value(value)}; mend one of the two")


def _beside(sweep: SweepConfig, key: str) -> Point:
    """The settings that a setting depends on, each with the first value that it is searched beside."""
    point: Point = {}
    for other, wanted in sweep.space[key].when.items():
        point |= {**_beside(sweep, other), other: wanted[0] if isinstance(wanted, list) else wanted}
    return point


def _completed(sweep: SweepConfig, point: Point) -> Point:
    """With a first value of each setting that depends on those of a point."""
    for key, domain in sweep.space.items():
        if key not in point and domain.when and domain.applies(point):
            point = {**point, key: domain.samples()[0]}
    return point


def describe_point(point: Point) -> str:
    """For people, e.g. `recipe.guidance_scale=2 images_per_class=100`."""
    return " ".join(f"{key}={describe_value(value)}" for key, value in point.items())


def describe_value(value: Any) -> str:
    """A searched value as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
