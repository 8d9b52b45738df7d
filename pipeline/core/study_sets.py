"""A study's second table: top-5, the other test sets and corrupted images, each beside what the paper says."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from pipeline.core.study_config import PaperFigure
from pipeline.core.study_plan import Cell, StudyPlan
from pipeline.core.study_report import mean_std, paper_number
from pipeline.core.text_table import markdown_head, markdown_row

Scores = Mapping[tuple[Cell, int], Mapping[str, float]]
"""Column -> value (0..1) by (cell, seed); trainings not done are not in it."""

TOP5 = "top-5"
"""Column of the main test set's top-5 accuracy."""
CORRUPTED = "corrupted"
"""Column of the mean accuracy on corrupted images of the main test set."""
PAPER_FIELDS = {TOP5: "top5", "imagenet_sketch": "sketch", "imagenet_r": "r", "imagenet_a": "a"}
"""Column -> field of `PaperFigure`."""
_ABOUT = (
    "Mean ± sample standard deviation over seeds. A set that shows only some of the classes is scored among those; in "
    "brackets the paper's figure."
)
CSV_COLUMNS = ("axis", "setting", "data", "metric", "seeds", "mean", "std", "paper")


def sets_markdown(plan: StudyPlan, scores: Scores) -> str:
    """The table for people, axis by axis; empty before anything is known."""
    columns = _columns(plan, scores)
    if not columns:
        return ""
    text = [
        "## Other test sets",
        "",
        _ABOUT,
    ]
    for axis, pairs in plan.axes.items():
        text += ["", *markdown_head([axis, *columns])]
        for label, cell in pairs:
            figure = plan.paper.get((axis, label))
            text.append(markdown_row([label, *(_entry(plan, scores, cell, column, figure) for column in columns)]))
    return "\n".join(text) + "\n"


def sets_csv(plan: StudyPlan, scores: Scores) -> str:
    """One line per setting and column, columns `CSV_COLUMNS`; values that are not known are no line, or empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for axis, pairs in plan.axes.items():
        for label, cell in pairs:
            for column in _columns(plan, scores):
                if values := _values(plan, scores, cell, column):
                    paper = _paper(plan.paper.get((axis, label)), column)
                    numbers = ["" if n is None else f"{n:.6f}" for n in (*mean_std(values), paper)]
                    writer.writerow([axis, label, cell.config.train.data, column, len(values), *numbers])
    return out.getvalue()


def _columns(plan: StudyPlan, scores: Scores) -> list[str]:
    told = [column for column, name in PAPER_FIELDS.items() if any(getattr(f, name) for f in plan.paper.values())]
    measured = [column for trial in plan.trials() for column in scores.get(trial, ())]
    found = dict.fromkeys([*measured, *(told if measured else [])])
    return sorted(found, key=lambda column: (column != TOP5, column == CORRUPTED))


def _values(plan: StudyPlan, scores: Scores, cell: Cell, column: str) -> Sequence[float]:
    found = (scores.get((cell, seed), {}).get(column) for seed in plan.seeds)
    return [value for value in found if value is not None]


def _paper(figure: PaperFigure | None, column: str) -> float | None:
    value: float | None = getattr(figure, PAPER_FIELDS[column]) if figure and column in PAPER_FIELDS else None
    return value


def _entry(plan: StudyPlan, scores: Scores, cell: Cell, column: str, figure: PaperFigure | None) -> str:
    mean, std = mean_std(_values(plan, scores, cell, column))
    measured = "" if mean is None else f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}")
    if figure is None:
        return measured
    certainty = (column == TOP5 and figure.top5_certainty) or figure.certainty
    told = paper_number(_paper(figure, column), certainty)
    return " ".join(word for word in (measured, told and f"[{told}]") if word)
