"""The run that a promoted trial is: what the sweep tried, at another budget and in another place, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import apply_overrides
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.model_identity import LENGTH, WHERE_AND_HOW
from pipeline.core.search_space import describe_value, lay_over
from pipeline.core.sweep_config import SweepConfig

BUDGET = LENGTH | WHERE_AND_HOW
"""Fields of `TrainConfig` that a trial has from the sweep's `base` for itself alone."""
DECISIVE = ("classes", "images_per_class", "recipe", "train")
"""Keys of `RunConfig` that decide images and models; all others say where, how and what is done with them later."""


def lasting(words: Sequence[str]) -> dict[str, Any]:
    """What a sweep's `base` words say of what a trial was, less its budget, as nested values of a run.

    The budget is `images_per_class`, the epochs and where and how is trained. `train.data=mixed`, say, is none: a
    trial without it is another trial. What decides nothing, e.g. `evaluate.test_set`, is for the promotion to say.
    """
    values = apply_overrides({}, words)
    kept = {key: value for key, value in values.items() if key in DECISIVE and key != "images_per_class"}
    return _without_budget(kept)


def full_config(sweep: SweepConfig, base: RunConfig, point: dict[str, Any]) -> RunConfig:
    """A run, then what lasts of a sweep's `base`, then its `full` words, then a trial's point. Raises `InputError`."""
    return lay_over(base, sweep.full, point, beneath=lasting(sweep.base))


def check_same_settings(searched: RunConfig, given: RunConfig, name: str) -> None:
    """Raises `InputError` when a promotion's run is another than the one its sweep searched over.

    The epochs may differ, since they are the promotion's own and its report shows them beside the trial's; so may all
    that decides neither images nor models.

    Args:
        searched: the run of the sweep.
        given: the run that the promotion was called with.
        name: of the sweep.
    """
    was, now = (flatten(_decisive(config)) for config in (searched, given))
    differing = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if differing:
        listed = ", ".join(
            f"{key} was {describe_value(was.get(key))} and is {describe_value(now.get(key))}" for key in differing
        )
        raise InputError(
            f"sweep {name} searched over another run than this one: {listed}; give the --preset, --config and --set "
            "words that tune.sweep had"
        )


def _decisive(config: RunConfig) -> dict[str, Any]:
    return _without_budget(config.model_dump(mode="json", include=set(DECISIVE)))


def _without_budget(values: dict[str, Any]) -> dict[str, Any]:
    """Nested values of a run with the fields of `BUDGET` left out of its training, if they hold one."""
    if "train" not in values:
        return values
    return {**values, "train": {key: value for key, value in values["train"].items() if key not in BUDGET}}
