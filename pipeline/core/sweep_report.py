"""The results of a sweep: its trials in order, the Pareto front, and table, CSV and plot of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.core.search_space import Point, describe_point, describe_value
from pipeline.core.text_table import markdown_cell, markdown_head, markdown_row

State = Literal["finished", "stopped early", "failed", "unfinished"]
COLUMNS = ("trial", "state", "val_accuracy", "cost_device_s", "epochs", "images_per_class", "seconds", "front", "model")


@dataclass(frozen=True)
class TrialResult:
    """One trial.

    Args:
        trial: its id.
        state: how it ended.
        point: the settings that were searched.
        images_per_class: that it trained on.
        epochs: done.
        accuracy: on the validation images after the last epoch, 0..1; None before the first.
        cost: device seconds of its images and its training; None before the first epoch.
        seconds: that it kept its slot.
        ended: when it told its last epoch, seconds since 1970.
        model_dir: where its model lies when it is finished; empty when its settings make no valid run.
        reason: why it failed.
    """

    trial: str
    state: State
    point: Point
    images_per_class: int
    epochs: int
    accuracy: float | None
    cost: float | None
    seconds: float
    ended: float
    model_dir: str
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """JSON-able."""
        return dict(self.__dict__)

    @property
    def scored(self) -> tuple[float, float] | None:
        """(accuracy, cost) of a trial that trained to its end."""
        if self.state != "finished" or self.accuracy is None or self.cost is None:
            return None
        return self.accuracy, self.cost


def in_order(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Finished trials by accuracy, then the stopped ones, then the failed ones."""
    states = ("finished", "stopped early", "unfinished", "failed")
    return sorted(trials, key=lambda t: (states.index(t.state), -(t.accuracy or 0.0), t.cost or 0.0, t.trial))


def pareto_front(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """Finished trials that no other one beats in accuracy at the same or less cost; cheapest first."""
    front: list[TrialResult] = []
    scored = [(found, trial) for trial in trials if (found := trial.scored)]
    for (accuracy, _), trial in sorted(scored, key=lambda pair: (pair[0][1], -pair[0][0])):
        if not front or accuracy > (front[-1].accuracy or 0.0):
            front.append(trial)
    return front


def best_trial(trials: Sequence[TrialResult]) -> TrialResult | None:
    """The finished trial of the highest accuracy, the cheaper one of equals; None without a finished trial."""
    front = pareto_front(trials)
    return front[-1] if front else None


def markdown(trials: Sequence[TrialResult], title: str, compared_on: str, facts: dict[str, Any]) -> str:
    """The table for people."""
    front = {trial.trial for trial in pareto_front(trials)}
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    head = ["trial", *keys, "accuracy", "cost (device s)", "epochs", "front"]
    text = [f"# {title}", "", f"Accuracy after the last epoch on {compared_on}; cost: device seconds.", ""]
    text += markdown_head(head)
    for trial in in_order(trials):
        number = "" if trial.accuracy is None else f"{trial.accuracy:.4f}"
        state = "" if trial.state == "finished" else f" ({trial.state})"
        cells = [trial.trial, *(describe_value(trial.point[key]) if key in trial.point else "" for key in keys)]
        cells += [number + state, "" if trial.cost is None else f"{trial.cost:,.1f}", f"{trial.epochs}"]
        text.append(markdown_row([*cells, "yes" if trial.trial in front else ""]))
    failed = [trial for trial in trials if trial.state == "failed"]
    text += ["", "## Failed", ""] if failed else []
    text += [
        f"* {trial.trial} ({markdown_cell(describe_point(trial.point))}): {markdown_cell(trial.reason)}"
        for trial in failed
    ]
    return "\n".join([*text, "", *summary_lines(facts)]) + "\n"


def summary_lines(facts: dict[str, Any]) -> list[str]:
    """What the sweep took, for people."""
    images = (
        f"images: {facts['images_asked']:,} asked for, {facts['images_made']:,} made, {facts['images_reused']:,} reused"
        f"; {facts['image_device_s_spent']:,.0f} device s spent, {facts['image_device_s_saved']:,.0f} saved"
    )
    slots = (
        f"slots: {facts['slots']}, use {facts['slot_use']:.3f} ({facts['trial_s']:,.0f} s of trials in "
        f"{facts['wall_s']:,.0f} s)"
    )
    trials = f"trials: {facts['finished']} finished, {facts['stopped_early']} stopped early, {facts['failed']} failed"
    return [trials, images, slots]


def to_csv(trials: Sequence[TrialResult]) -> str:
    """The table for programs: `COLUMNS`, then the searched settings as JSON; empty where nothing is known."""
    front = {trial.trial for trial in pareto_front(trials)}
    keys = list(dict.fromkeys(key for trial in trials for key in trial.point))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *keys])
    for trial in in_order(trials):
        numbers = ["" if value is None else f"{value:.6f}" for value in (trial.accuracy, trial.cost)]
        rest = [
            trial.epochs,
            trial.images_per_class,
            f"{trial.seconds:.3f}",
            int(trial.trial in front),
        ]
        point = [json.dumps(trial.point[key]) if key in trial.point else "" for key in keys]
        writer.writerow([trial.trial, trial.state, *numbers, *rest, trial.model_dir, *point])
    return out.getvalue()


def plot_png(trials: Sequence[TrialResult], title: str) -> bytes:
    """Accuracy against cost, every trial a point, the Pareto front a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it would open a window where there is one
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for state, marker, colour in (("finished", "o", "C0"), ("stopped early", "x", "C7")):
        axes.scatter(*_costs([t for t in trials if t.state == state]), marker=marker, color=colour, label=state)
    axes.plot(*_costs(pareto_front(trials)), drawstyle="steps-post", color="C1", label="Pareto front")
    axes.set_xlabel("cost: device seconds of images and training")
    axes.set_ylabel("accuracy on the validation images")
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    return out.getvalue()


def _costs(trials: Sequence[TrialResult]) -> tuple[list[float], list[float]]:
    """Costs and accuracies of the trials that have both."""
    known = [(t.cost, t.accuracy) for t in trials if t.cost is not None and t.accuracy is not None]
    return [cost for cost, _ in known], [accuracy for _, accuracy in known]
