"""What the settings of a study cost before anything starts: images, hours, money, and the paper's figure beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.study_plan import StudyPlan
from pipeline.core.study_report import paper_figure

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
            **{key: planned[cell][key] for key in ("images", "stored_gb", "gpu_hours", "usd")},
            "samples": planned[cell]["images"] * cell.config.train.epochs * len(plan.seeds),
            "paper": paper_figure(plan.paper.get((axis, label))),
        }
        for axis, pairs in plan.axes.items()
        for label, cell in pairs
        if not cell.is_real
    ]


def total_costs(plan: StudyPlan, plan_run: PlanRun) -> dict[str, Any]:
    """Images, GB, GPU hours and USD of all distinct image sets of a study, and where the speeds come from."""
    planned = [plan_run(config) for config in plan.image_sets()]
    speeds = {f"{found['images_per_s_per_gpu']:.3g} images/s per GPU ({found['speed_source']})": 0 for found in planned}
    sums = {key: sum(found[key] for found in planned) for key in ("images", "stored_gb", "gpu_hours", "usd")}
    return {**sums, "speeds": list(speeds)}


def costs_markdown(rows: list[dict[str, Any]], total: Mapping[str, Any]) -> str:
    """The table for people, axis by axis."""
    text: list[str] = []
    axis = None
    for row in rows:
        if row["axis"] != axis:
            axis = row["axis"]
            head = f"| {axis} | images | GB | GPU hours | USD | training samples | paper, top-1 |"
            text += ["", head, "|" + "---|" * 7]
        numbers = [f"{row['images']:,}", f"{row['stored_gb']:,.0f}", f"{row['gpu_hours']:,.0f}", f"{row['usd']:,.0f}"]
        cells = [row["setting"], *numbers, f"{row['samples'] / 1e6:,.0f} M", row["paper"]]
        text.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    made = f"{total['images']:,.0f} images, {total['stored_gb']:,.0f} GB, {total['gpu_hours']:,.0f} GPU hours"
    text += ["", f"All image sets together, shared ones once: {made}, ${total['usd']:,.0f}."]
    return "\n".join([*text, f"Speed: {'; '.join(total['speeds'])}."])
