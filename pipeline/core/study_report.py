"""A study's results as one table (Markdown, CSV) and one plot."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.core.choices import describe_guidance, describe_template
from pipeline.core.study_config import TWIN_AXIS, PaperFigure
from pipeline.core.study_plan import Cell, StudyPlan
from pipeline.core.text_table import markdown_head, markdown_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Top1 = Mapping[tuple[Cell, int], float]
"""Top-1 accuracy (0..1) on the real test images by (cell, seed); trainings not done are not in it."""

COLUMNS = (
    "axis", "setting", "data", "images", "template", "guidance", "epochs", "seeds", "top1_mean", "top1_std",
    "twin_images", "twin_top1_mean", "gap", "paper_top1",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One line of the table: a cell under one of its axes.

    Args:
        axis: what is varied.
        setting: the cell's label on that axis.
        cell: the setting itself.
        images: how many it was trained on, of a mixed training the generated ones; before its first training, how many
            are asked for.
        top1: accuracy (0..1) of the seeds that are done, in the order of the plan's seeds.
        twin_top1: the same of the real twin; None for a line that is a twin, or in a study without.
        twin_images: how many that one was or is to be trained on: as many, or the most there are.
        asked: images that are asked for of this one, whatever became of them.
        paper: what the paper says of this setting.
    """

    axis: str
    setting: str
    cell: Cell
    images: int
    top1: tuple[float, ...]
    twin_top1: tuple[float, ...] | None
    twin_images: int | None = None
    paper: PaperFigure | None = None
    asked: int = 0

    @property
    def gap(self) -> float | None:
        """Mean of the twin minus mean of this one (positive: real images are better); None when one is missing."""
        if not self.top1 or not self.twin_top1:
            return None
        return statistics.fmean(self.twin_top1) - statistics.fmean(self.top1)


def lines(
    plan: StudyPlan, top1: Top1, num_classes: Mapping[str, int], trained_on: Mapping[Cell, int] | None = None
) -> list[Line]:
    """The table, axis by axis.

    Args:
        plan: the study.
        top1: what is measured.
        num_classes: by class table, as runs name it.
        trained_on: images, of cells with a result: images may fail, and real classes may have fewer than is asked for.
    """
    known = trained_on or {}

    def done(cell: Cell) -> tuple[float, ...]:
        return tuple(top1[cell, seed] for seed in plan.seeds if (cell, seed) in top1)

    def asked(cell: Cell) -> int:
        return cell.config.images_per_class * num_classes[cell.config.classes] + cell.config.train.num_extra

    twins = {cell: None if cell.is_real else plan.twin_of(cell) for cell in plan.cells}
    return [
        Line(
            axis=axis,
            setting=label,
            cell=cell,
            images=known.get(cell, asked(cell)),
            top1=done(cell),
            twin_top1=None if (twin := twins[cell]) is None else done(twin),
            twin_images=None if twin is None else known.get(twin, asked(twin)),
            paper=plan.paper.get((axis, label)),
            asked=asked(cell),
        )
        for axis, pairs in plan.axes.items()
        for label, cell in pairs
    ]


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """(mean, sample standard deviation); None where there are too few values (none, or one)."""
    if not values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def markdown(table: Sequence[Line], num_seeds: int, title: str, about: str = "") -> str:
    """The table for people, after `about`, the command that it comes from. Cells whose seeds are not all done carry
    `(k of n seeds)`.
    """
    missing = sum({line.cell: num_seeds - len(line.top1) for line in table}.values())
    text = [f"# {title}", "", *([f"    {' '.join(about.splitlines())}", ""] if about else [])]
    text += [f"**Incomplete:** {missing} results are missing; the same command goes on.", ""] if missing else []
    text.append(
        f"Top-1 accuracy on the real test images, mean ± sample standard deviation over {num_seeds} seeds. "
        "Gap: real twin of the same size and length minus this one"
        + (", or the largest there is, whose size is in brackets." if any(map(_has_fewer, table)) else ".")
        + (" Of mixed trainings the generated images count." if any(map(_is_mixed, table)) else "")
    )
    axis, with_paper = None, any(line.paper for line in table)
    for line in table:
        if line.axis != axis:
            axis = line.axis
            head = [axis, "images", "template", "guidance", "epochs", "top-1", "real twin", "gap"]
            text += ["", *markdown_head(head + ["paper"] * with_paper)]
        recipe, real = line.cell.config.recipe, line.cell.is_real
        cells = [
            line.setting,
            f"{line.images:,}",
            _trained_on(line.cell),
            "" if real else describe_guidance(recipe.guidance_scale),
            f"{line.cell.config.train.epochs}",
            _accuracy(line.top1, num_seeds),
            "" if line.twin_top1 is None else _accuracy(line.twin_top1, num_seeds) + _twin_size(line),
            "" if line.gap is None else f"{line.gap:+.3f}",
            *([paper_figure(line.paper)] if with_paper else []),
        ]
        text.append(markdown_row(cells))
    return "\n".join(text) + "\n"


def _trained_on(cell: Cell) -> str:
    template = describe_template(cell.config.recipe.template)
    return {"real": "real images", "mixed": f"{template}, and real images"}.get(cell.config.train.data, template)


def _is_mixed(line: Line) -> bool:
    return line.cell.config.train.data == "mixed"


def _has_fewer(line: Line) -> bool:
    return line.twin_images is not None and line.twin_images < line.images


def _twin_size(line: Line) -> str:
    return f" ({line.twin_images:,} images)" if _has_fewer(line) else ""


def paper_figure(figure: PaperFigure | None) -> str:
    """The paper's top-1 and how sure it is, e.g. `0.429 (second-hand)`; empty when nothing is known."""
    return "" if figure is None else paper_number(figure.top1, figure.certainty)


def paper_number(value: float | None, certainty: str) -> str:
    """Any number of a figure in the same form."""
    return "" if value is None else f"{value:.3f} ({certainty})"


def _accuracy(values: Sequence[float], num_seeds: int) -> str:
    mean, std = mean_std(values)
    if mean is None:
        return "not yet"
    spread = "" if std is None else f" ± {std:.3f}"
    return f"{mean:.3f}{spread}" + (f" ({len(values)} of {num_seeds} seeds)" if len(values) < num_seeds else "")


def to_csv(table: Sequence[Line]) -> str:
    """The table for programs, columns `COLUMNS`; empty where a value is not known yet."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in table:
        config = line.cell.config
        recipe = config.recipe
        made = [describe_template(recipe.template), describe_guidance(recipe.guidance_scale)]
        made = ["", ""] if line.cell.is_real else made
        head = [line.axis, line.setting, config.train.data, line.images, *made, config.train.epochs, len(line.top1)]
        paper = None if line.paper is None else line.paper.top1
        of_twin = [mean_std(line.twin_top1 or ())[0], line.gap, paper]
        own, rest = (
            ["" if number is None else f"{number:.6f}" for number in part] for part in (mean_std(line.top1), of_twin)
        )
        writer.writerow([*head, *own, "" if line.twin_images is None else line.twin_images, *rest])
    return out.getvalue()


def plot_png(table: Sequence[Line], title: str) -> bytes:
    """One panel per axis, real twin beside it: curves where the settings are numbers, points where they are words.

    The real twins have a panel of their own only where there is no other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no pyplot: it would open a window where there is one
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(line.axis for line in table))
    axes = [axis for axis in axes if axis != TWIN_AXIS] or axes
    figure = Figure(figsize=(4.6 * len(axes), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    for panel, axis in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes, strict=True):
        _panel(panel, axis, [line for line in table if line.axis == axis])
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=130, metadata={"Software": None})
    return out.getvalue()


_SERIES = {
    "synthetic": ("C0", "synthetic images"),
    "mixed": ("C2", "synthetic and real images"),
    "real": ("C1", "real images"),
}
"""Colour and name of what is trained on each kind of data."""


def _panel(panel: Axes, axis: str, found: Sequence[Line]) -> None:
    by_size = len({line.asked for line in found}) == len(found) > 1  # on any axis as many fail as may
    names = [f"{line.images:,}" if by_size else line.setting for line in found]
    numeric = by_size or all(_number(line.setting) is not None for line in found)
    x = [float(line.images) if by_size else _number(line.setting) or 0.0 for line in found]
    if not numeric:
        x = [float(position) for position in range(len(found))]
    ends: list[float] = []

    def draw(groups: Sequence[Sequence[float]], marker: str, color: str, style: str, label: str) -> None:
        mean, spread = _mean_spread(groups)
        panel.errorbar(
            x, mean, spread, marker=marker, capsize=3, color=color, linestyle=style if numeric else "none", label=label
        )
        ends.extend(end for m, s in zip(mean, spread, strict=True) for end in (m - s, m + s) if math.isfinite(end))

    for data, (color, label) in _SERIES.items():
        of_these = [line.top1 if line.cell.config.train.data == data else () for line in found]
        if any(line.cell.config.train.data == data for line in found):
            draw(of_these, "o", color, "-", label)
    if any(line.twin_top1 is not None for line in found):
        draw([line.twin_top1 or () for line in found], "s", "C1", "--", "real twin")
    if by_size:
        panel.set_xscale("log")
        panel.minorticks_off()
    panel.set_xticks(x, names, rotation=0 if numeric else 15, parse_math=False)
    panel.set_xlabel("images (log scale)" if by_size else axis, parse_math=False)
    panel.set_ylabel("top-1 on real test images")
    if ends:
        panel.set_ylim(max(0.0, math.floor(20 * min(ends) - 0.5) / 20), min(1.0, math.ceil(20 * max(ends) + 0.5) / 20))
    if not numeric:
        panel.set_xlim(-0.5, len(found) - 0.5)
    panel.grid(axis="y", alpha=0.3)
    panel.legend(loc="best", fontsize="small")


def _mean_spread(groups: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Means and standard deviations for drawing: NaN draws nothing, 0 draws no error bar."""
    found = [mean_std(values) for values in groups]
    return [math.nan if mean is None else mean for mean, _ in found], [std or 0.0 for _, std in found]


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def outline_text(outline: Mapping[str, Any]) -> str:
    """`pipeline.stages.study.Study.outline` as a line for people."""
    to_do = f"{outline['trainings_to_do']} to do now"
    if outline["only_to_score"]:
        to_do += f" ({outline['only_to_score']} of them are trained already and only scored)"
    hours = outline["training_hours"]
    known = "hours not known before the first training" if hours is None else f"about {hours:.1f} hours of training"
    return (
        f"{outline['cells']} cells, {outline['trainings']} trainings, {to_do} on "
        f"{outline['samples_to_train']:,} samples ({known}); {outline['images_to_make']:,} images to make"
    )
