"""What the settings of a study cost before anything starts: images, hours, money, and the paper's figure beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.run_plan import on_gpus
from pipeline.core.study_plan import StudyPlan
from pipeline.core.study_report import paper_figure
from pipeline.core.text_table import few_digits, markdown_head, markdown_row

PlanRun = Callable[[RunConfig], Mapping[str, Any]]
"""`pipeline.core.run_plan.plan_run` on a cluster."""


def study_costs(plan: StudyPlan, plan_run: PlanRun) -> list[dict[str, Any]]:
    """One dict per setting of every axis but the real twins, JSON-able.

    Settings share images: a smaller set is the beginning of a larger one of the same recipe, so the rows do not add
    up to what the study costs. `total_costs` does.
    """
    planned = {cell: plan_run(cell.config) for cell in plan.cells if not cell.is_real}
    return [
        {
            "axis": axis,
            "setting": label,
            **{key: planned[cell][key] for key in ("stored_gb", "gpu_hours", "usd")},
            "images": planned[cell]["images"] + cell.config.train.num_extra,
            "extra_images": cell.config.train.num_extra,
            "samples": planned[cell]["trained_on"] * cell.config.train.epochs * len(plan.seeds),
            "train_gpu_hours": _times(planned[cell]["train_gpu_hours"], len(plan.seeds)),
            "paper": paper_figure(plan.paper.get((axis, label))),
        }
        for axis, pairs in plan.axes.items()
        for label, cell in pairs
        if not cell.is_real
    ]


def total_costs(plan: StudyPlan, plan_run: PlanRun) -> dict[str, Any]:
    """Images, GB, GPU hours and USD of all distinct image sets of a study, hours by the clock on the GPUs that the
    smallest pool takes, GPU hours of all its trainings but the real twins', and where the speeds come from.

    `gpus` is None where no images are made, as with real twins alone.
    """
    planned = [plan_run(config) for config in plan.image_sets()]
    speeds = {
        f"{few_digits(found['images_per_s_per_gpu'])} images/s per GPU ({found['speed_source']})": 0
        for found in planned
    }
    sums = {
        key: sum(found[key] for found in planned) for key in ("images", "stored_gb", "gpu_hours", "wall_hours", "usd")
    }
    smallest = min(planned, key=lambda found: found["gpus_at_work"], default=None)
    gpus = None if smallest is None else on_gpus(smallest)
    trained = [plan_run(cell.config) for cell in plan.cells if not cell.is_real]
    hours = [found["train_gpu_hours"] for found in trained]
    known = None if None in hours else sum(hours) * len(plan.seeds)
    sources = list(dict.fromkeys(found["train_speed_source"] for found in trained))
    return {**sums, "gpus": gpus, "speeds": list(speeds), "train_gpu_hours": known, "train_speeds": sources}


def _times(hours: float | None, seeds: int) -> float | None:
    return None if hours is None else hours * seeds


def costs_markdown(rows: list[dict[str, Any]], total: Mapping[str, Any]) -> str:
    """The table for people, axis by axis."""
    text: list[str] = []
    axis = None
    for row in rows:
        if row["axis"] != axis:
            axis = row["axis"]
            head = ["images", "GB", "GPU hours", "USD", "training samples", "training GPU hours", "paper, top-1"]
            text += ["", *markdown_head([axis, *head])]
        numbers = [f"{row['images']:,}", *(few_digits(row[key]) for key in ("stored_gb", "gpu_hours", "usd"))]
        training = [f"{few_digits(row['samples'] / 1e6)} M", _hours(row["train_gpu_hours"])]
        text.append(markdown_row([row["setting"], *numbers, *training, row["paper"]]))
    gb, hours, usd = (few_digits(total[key]) for key in ("stored_gb", "gpu_hours", "usd"))
    made = f"{total['images']:,.0f} images, {gb} GB, {hours} GPU hours"
    text += ["", f"All image sets together, shared ones once: {made}, ${usd}."]
    if any(row["extra_images"] for row in rows):
        text.append("Extra images (train.extra_images) count as images and in training, not in GB, GPU hours and USD.")
    if total["gpus"] is None:
        return "\n".join(text)
    text.append(f"One set after the other on {total['gpus']}: {few_digits(total['wall_hours'])} hours by the clock.")
    text.append(f"Speed: {'; '.join(total['speeds'])}.")
    if total["train_gpu_hours"] is not None:
        source = "; ".join(total["train_speeds"])
        text.append(f"All trainings but the real twins': {few_digits(total['train_gpu_hours'])} GPU hours ({source}).")
    return "\n".join(text)


def _hours(hours: float | None) -> str:
    return "not known" if hours is None else few_digits(hours)
