"""A proposal of growth as figures, as text for people and as the files that the next commands take."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from pipeline.core.classes import ClassTable
from pipeline.core.config import RunConfig
from pipeline.core.extra_counts import ExtraImages
from pipeline.core.growth import Counts, GrowthFit, allocate, shared_errors
from pipeline.core.model_identity import LENGTH
from pipeline.core.text_table import markdown_head, markdown_row

MAX_PAIRS = 10
MAX_LINES = 30
"""Classes of the text for people; the files have all."""
NUM_RANGES = 100
"""Resampled laws whose own proposals give the range of each class's."""
LOGIT_ADJUSTMENT = 1
"""Of a training on classes that grew apart: without it the classes that grew most are predicted too often."""
COMPARISON_SEEDS = 5
"""Trainings of each kind in the comparison: what is to be seen is a few thousandths."""


@dataclass(frozen=True)
class Proposal:
    """How many more images each class should get.

    Args:
        fit: of the classes.
        start: images that every class has.
        block: images of a block.
        counts: further images of every class, int64 [C].
        confusion: at `start` images, all seeds added up, int64 [C, C]; rows are true classes.
    """

    fit: GrowthFit
    start: int
    block: int
    counts: Counts
    confusion: Counts

    @property
    def images(self) -> int:
        """Further images of all classes."""
        return int(self.counts.sum())

    @property
    def even(self) -> int:
        """Images of each class if all grew alike."""
        return self.start + self.images // len(self.counts)

    def extra_images(self, classes: ClassTable) -> ExtraImages:
        """The counts as a config holds them."""
        pairs = zip(classes.wnids, self.counts.tolist(), strict=True)
        return tuple(sorted((wnid, count) for wnid, count in pairs if count))


def growth_facts(proposal: Proposal, classes: ClassTable) -> dict[str, Any]:
    """The figures, JSON-able: of every class, of the pairs that are confused most, and the expected mean accuracies.

    `advantage` is targeted less uniform growth. It is at least 0 by its own laws, which the proposal was made for; its
    interval holds 95 % of what the resampled laws say of this proposal, and these may say less than 0.
    """
    laws, start = proposal.fit.laws, np.full(len(classes), proposal.start)
    even, targeted = np.full(len(classes), proposal.even), proposal.start + proposal.counts
    resampled = proposal.fit.resampled
    others = [allocate(one, proposal.start, proposal.images, proposal.block) for one in resampled[:NUM_RANGES]]
    low, high = np.quantile(others, [0.025, 0.975], axis=0)
    advantages = [float((one.errors(even) - one.errors(targeted)).mean()) for one in resampled]
    expected = {
        name: float(1 - laws.errors(images).mean())
        for name, images in (("start", start), ("uniform", even), ("targeted", targeted))
    }
    right = np.diag(proposal.confusion) / proposal.confusion.sum(axis=1)
    shared = shared_errors(proposal.confusion)
    mendable = laws.amplitudes * float(proposal.start) ** -laws.exponent
    return {
        "start": proposal.start,
        "images": proposal.images,
        "block": proposal.block,
        "exponent": laws.exponent,
        "expected_accuracy": {**expected, "uniform_images_per_class": proposal.even},
        "advantage": expected["targeted"] - expected["uniform"],
        "advantage_interval": np.quantile(advantages, [0.025, 0.975]).tolist(),
        "classes": [
            {
                "wnid": classes.wnids[label],
                "class": classes.names[label],
                "images": int(proposal.counts[label]),
                "images_low": int(low[label]),
                "images_high": int(high[label]),
                "accuracy": float(right[label]),
                "shared_error": float(shared[label]),
                "mendable_error": float(mendable[label]),
                "floor": float(laws.floors[label]),
            }
            for label in range(len(classes))
        ],
        "pairs": confused_pairs(proposal.confusion, classes),
    }


def confused_pairs(confusion: Counts, classes: ClassTable) -> list[dict[str, Any]]:
    """The pairs of classes with most confusions between them, either way: names, share of all errors, counts."""
    wrong = confusion - np.diag(np.diag(confusion))
    both = np.triu(wrong + wrong.T)
    order = np.argsort(-both, axis=None, kind="stable")[:MAX_PAIRS]
    found = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, both.shape), strict=True)]
    return [
        {
            "one": classes.names[i],
            "other": classes.names[j],
            "share_of_errors": float(both[i, j] / wrong.sum()),
            "one_taken_for_other": int(wrong[i, j]),
            "other_taken_for_one": int(wrong[j, i]),
        }
        for i, j in found
        if both[i, j]
    ]


def growth_csv(facts: dict[str, Any]) -> str:
    """The table that `jobs.generate --per-class` takes; it reads the columns `wnid` and `images`."""
    file = io.StringIO()
    columns = ["wnid", "class", "images", "images_low", "images_high", "accuracy", "shared_error", "mendable_error"]
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(facts["classes"])
    return file.getvalue()


def as_trained(trained: RunConfig, preset: RunConfig) -> dict[str, dict[str, Any]]:
    """What the trainings behind a proposal had set over the preset, JSON-able: images of another recipe, or another
    training, would answer another question.

    Args:
        trained: one of the trainings on the start size.
        preset: what the command was called with, which the next commands are called with, too.

    Returns:
        Values under `recipe` and `train`; template and length always.
    """
    values, base = trained.model_dump(mode="json"), preset.model_dump(mode="json")
    always = {("recipe", "template"), *(("train", name) for name in LENGTH)}
    return {
        section: {
            name: value
            for name, value in values[section].items()
            if (section, name) in always or ((section, name) != ("train", "seed") and value != base[section][name])
        }
        for section in ("recipe", "train")
    }


def growth_config(proposal: Proposal, classes: ClassTable, trained: dict[str, dict[str, Any]]) -> str:
    """The YAML that `jobs.generate --config` and `jobs.train --config` take over a preset; `trained`: `as_trained`."""
    extra = {"extra_images": dict(proposal.extra_images(classes)), "logit_adjustment": LOGIT_ADJUSTMENT}
    values = {**trained, "images_per_class": proposal.start, "train": {**trained["train"], **extra}}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def comparison_study(proposal: Proposal, classes: ClassTable, trained: dict[str, dict[str, Any]]) -> str:
    """The YAML of a study that trains on both growths, as long and on as many images, for `jobs.study --study`.

    Args:
        proposal: the targeted one.
        classes: of the run.
        trained: `as_trained`, which both have.
    """
    extra = yaml.safe_dump(dict(proposal.extra_images(classes)), default_flow_style=True, width=10**9).strip()
    values = {
        "seeds": list(range(COMPARISON_SEEDS)),
        "base": [
            f"{section}.{name}={json.dumps(value, ensure_ascii=False)}"
            for section, values in trained.items()
            for name, value in values.items()
        ],
        "twins": False,
        "axes": {
            "growth": {
                "uniform": [f"images_per_class={proposal.even}"],
                "targeted": [
                    f"images_per_class={proposal.start}",
                    f"train.extra_images={extra}",
                    f"train.logit_adjustment={LOGIT_ADJUSTMENT}",
                ],
            }
        },
    }
    return yaml.safe_dump(values, sort_keys=False, width=10**9)


def growth_markdown(facts: dict[str, Any]) -> str:
    """The proposal for people."""
    expected, band = facts["expected_accuracy"], facts["advantage_interval"]
    summary = (
        f"{facts['images']:,} more images, from {facts['start']:,} of each class on. Expected mean accuracy on the "
        f"validation images: {expected['start']:.4f} now, {expected['uniform']:.4f} with "
        f"{expected['uniform_images_per_class']:,} of each class, {expected['targeted']:.4f} with these: "
        f"{facts['advantage']:+.4f} [{band[0]:+.4f}, {band[1]:+.4f}]."
    )
    text = [
        summary,
        "",
        *markdown_head(["class", "accuracy", "error, shared with pairs", "more images mend", "more images", "95 %"]),
    ]
    lines = sorted(facts["classes"], key=lambda line: -line["images"])
    for line in lines[:MAX_LINES]:
        cells = [
            line["class"],
            f"{line['accuracy']:.3f}",
            f"{line['shared_error']:.3f}",
            f"{line['mendable_error']:.3f}",
            f"{line['images']:,}",
            f"{line['images_low']:,} to {line['images_high']:,}",
        ]
        text.append(markdown_row(cells))
    if len(lines) > MAX_LINES:
        text.append(f"\n{len(lines) - MAX_LINES} more classes stand in growth.csv.")
    text += ["", "Confused most, all seeds added up:", ""]
    text += [
        f"* {pair['one']} and {pair['other']}: {pair['share_of_errors']:.0%} of all errors "
        f"({pair['one_taken_for_other']} and {pair['other_taken_for_one']})"
        for pair in facts["pairs"]
    ]
    return "\n".join(text) + "\n"
