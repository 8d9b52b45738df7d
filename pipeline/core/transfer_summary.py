"""From single probes to the numbers of a table: means over seeds, over data sets and over groups of sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipeline.core.encoders import Encoder
from pipeline.core.linear_probe import ProbeResult, log_odds
from pipeline.core.metrics import mean_and_std


@dataclass(frozen=True)
class ProbeRun:
    """One linear classifier.

    Args:
        encoder: whose features it read.
        dataset: name of the set.
        seed: of its validation part and search.
        result: what it did.
    """

    encoder: Encoder
    dataset: str
    seed: int
    result: ProbeResult


def summary(runs: Sequence[ProbeRun], groups_of_sets: Mapping[str, str]) -> list[dict[str, Any]]:
    """One JSON-able row for each group of encoders, in the order of their first run.

    Args:
        runs: every encoder on every set with every seed.
        groups_of_sets: group of each set by its name, in the order of the table.

    Returns:
        `group`, `encoders` (ids), `sets` (see `_cell`), `top1_mean` and `log_odds_mean` (over sets), `group_means`
        (top-1 over the sets of each group of sets) and `top1_mean_of_groups`.
    """
    rows = []
    for group in dict.fromkeys(run.encoder.group for run in runs):
        own = [run for run in runs if run.encoder.group == group]
        sets = {name: _cell([run for run in own if run.dataset == name]) for name in groups_of_sets}
        group_means = {
            of: fmean(sets[name]["top1_mean"] for name in sets if groups_of_sets[name] == of)
            for of in dict.fromkeys(groups_of_sets.values())
        }
        rows.append(
            {
                "group": group,
                "encoders": list(dict.fromkeys(run.encoder.id for run in own)),
                "sets": sets,
                "top1_mean": fmean(cell["top1_mean"] for cell in sets.values()),
                "log_odds_mean": fmean(cell["log_odds"] for cell in sets.values()),
                "group_means": group_means,
                "top1_mean_of_groups": fmean(group_means.values()),
            }
        )
    return rows


def _cell(runs: Sequence[ProbeRun]) -> dict[str, Any]:
    """Top-1 of a group of encoders on one set: the mean over probe seeds of each encoder, then over encoders.

    `top1_std` is the sample deviation over encoders (their training seeds); of a single encoder, over probe seeds.
    `log_odds` is that of the mean, as in trex; the mean of the runs' log-odds would be another number.
    """
    by_encoder: dict[str, list[ProbeRun]] = {}
    for run in runs:
        by_encoder.setdefault(run.encoder.id, []).append(run)
    means = [fmean(run.result.top1 for run in own) for own in by_encoder.values()]
    over_encoders = len(means) > 1
    mean, std = mean_and_std(means if over_encoders else [run.result.top1 for run in runs])
    test_images = runs[0].result.test_images
    return {
        "top1_mean": mean,
        "top1_std": std,
        "std_over": "encoders" if over_encoders else "probe seeds",
        "log_odds": log_odds(mean * test_images, test_images),
        "unfinished": sum(not run.result.finished for run in runs),
        "runs": [_run(run) for run in runs],
    }


def _run(run: ProbeRun) -> dict[str, Any]:
    result = run.result
    return {
        "encoder": run.encoder.id,
        "seed": run.seed,
        "top1": result.top1,
        "correct": result.correct,
        "test_images": result.test_images,
        "validation_top1": result.validation_top1,
        "settings": result.settings,
        "finished": result.finished,
        "trials": result.trials,
    }
