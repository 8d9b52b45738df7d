from __future__ import annotations

import csv
import io
import statistics

import pytest
from matplotlib.axes import Axes
from PIL import Image

from pipeline.core import study_report
from pipeline.core.config_loading import load_config
from pipeline.core.study_config import StudyConfig, load_study
from pipeline.core.study_plan import StudyPlan, plan_study
from pipeline.core.study_report import Top1, lines, markdown, mean_std, plot_png, to_csv

TEN = {"fashion_mnist": 10}


@pytest.fixture
def plan() -> StudyPlan:
    return plan_study(load_study("fashion"), load_config("fashion"))


@pytest.fixture
def top1(plan: StudyPlan) -> Top1:
    """Made-up accuracies, all different."""
    return {(cell, seed): 0.7 + 0.01 * i + 0.001 * seed for i, cell in enumerate(plan.cells) for seed in plan.seeds}


def test_a_complete_table_has_every_mean_spread_and_gap(plan: StudyPlan, top1: Top1) -> None:
    table = lines(plan, top1, TEN)
    assert len(table) == 4 + 4 + 3 + 3
    for line in table:
        values = [top1[line.cell, seed] for seed in plan.seeds]
        assert line.top1 == tuple(values)
        if not line.cell.is_real:
            twin = [top1[plan.twin_of(line.cell), seed] for seed in plan.seeds]
            assert line.gap == pytest.approx(statistics.fmean(twin) - statistics.fmean(values))
    text = markdown(table, 3, "Fashion")
    assert "Incomplete" not in text and "not yet" not in text and "seeds)" not in text
    assert "| 1x | 2,000 | c, h_c | 1 | 20 |" in text and "| 10x | 20,000 | c, h_c | 1 | 6 |" in text


def test_a_table_of_half_a_study_says_so(plan: StudyPlan, top1: Top1) -> None:
    first = plan.cells[0]
    half = {key: value for key, value in top1.items() if key == (first, 0)}
    text = markdown(lines(plan, half, TEN), 3, "Fashion")
    assert "**Incomplete:** 35 results are missing" in text  # 12 cells x 3 seeds, one of them done
    assert "(1 of 3 seeds)" in text and "not yet" in text


def test_the_csv_holds_the_same_numbers(plan: StudyPlan, top1: Top1) -> None:
    table = lines(plan, top1, TEN)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(rows) == len(table)
    for row, line in zip(rows, table, strict=True):
        assert float(row["top1_mean"]) == pytest.approx(statistics.fmean(line.top1), abs=1e-6)
        assert float(row["top1_std"]) == pytest.approx(statistics.stdev(line.top1), abs=1e-6)
        assert row["gap"] == ("" if line.gap is None else f"{line.gap:.6f}")


def test_a_twin_of_fewer_images_tells_how_many(plan: StudyPlan, top1: Top1) -> None:
    assert "in brackets" not in markdown(lines(plan, top1, TEN), 3, "Fashion")
    study = load_study("fashion").model_copy(update={"twin_sizes": [200]})
    fewer = plan_study(study, load_config("fashion"))
    table = lines(fewer, {(cell, seed): 0.5 for cell in fewer.cells for seed in fewer.seeds}, TEN)
    text = markdown(table, 3, "Fashion")
    assert "| 10x | 20,000 | c, h_c | 1 | 6 | 0.500 ± 0.000 | 0.500 ± 0.000 (2,000 images) | +0.000 |" in text
    assert "| 1x | 2,000 | c, h_c | 1 | 20 | 0.500 ± 0.000 | 0.500 ± 0.000 | +0.000 |" in text
    assert "or the largest there is, whose size is in brackets." in text
    rows = {(row["axis"], row["setting"]): row for row in csv.DictReader(io.StringIO(to_csv(table)))}
    assert rows["images", "10x"]["twin_images"] == "2000" and rows["real", "200 per class"]["twin_images"] == ""


def test_nothing_done_is_a_table_without_numbers(plan: StudyPlan) -> None:
    table = lines(plan, {}, TEN)
    assert all(row["top1_mean"] == row["gap"] == "" for row in csv.DictReader(io.StringIO(to_csv(table))))
    assert Image.open(io.BytesIO(plot_png(table, "Empty"))).size[0] > 1000


def test_the_paper_s_figure_stands_beside_what_was_measured() -> None:
    figure = {"top1": 0.429, "certainty": "second-hand"}
    study = StudyConfig.model_validate(
        {"twins": False, "axes": {"epochs": {"3": ["train.epochs=3"], "4": []}}, "paper": {"epochs": {"3": figure}}}
    )
    plan = plan_study(study, load_config("fashion"))
    text = markdown(lines(plan, {}, TEN), 3, "Fashion")
    assert "| not yet |  |  | 0.429 (second-hand) |" in text and "| not yet |  |  |  |" in text
    assert [row["paper_top1"] for row in csv.DictReader(io.StringIO(to_csv(lines(plan, {}, TEN))))] == ["0.429000", ""]


def test_a_spread_needs_two_values() -> None:
    assert mean_std([]) == (None, None)
    assert mean_std([0.5]) == (0.5, None)
    assert mean_std([0.4, 0.6]) == (pytest.approx(0.5), pytest.approx(0.02**0.5))


def test_the_plot_is_the_same_for_the_same_numbers_and_another_for_others(plan: StudyPlan, top1: Top1) -> None:
    table = lines(plan, top1, TEN)
    assert plot_png(table, "Fashion") == plot_png(table, "Fashion")
    assert plot_png(table, "Fashion") != plot_png(lines(plan, {k: v - 0.1 for k, v in top1.items()}, TEN), "Fashion")


def test_a_line_counts_the_images_of_its_own_classes() -> None:
    study = StudyConfig(twins=False, axes={"classes": {"a": ["classes=imagenet100"], "b": ["classes=imagenet1k"]}})
    plan = plan_study(study, load_config("imagenet100_sd", overrides=["images_per_class=10"]))
    assert [line.images for line in lines(plan, {}, {"imagenet100": 100, "imagenet1k": 1000})] == [1000, 10000]


def test_labels_axes_and_title_are_no_formulas() -> None:
    plan = plan_study(StudyConfig(axes={"cost $a_$": {"$b_$": [], "c": ["train.epochs=1"]}}), load_config("fashion"))
    assert plot_png(lines(plan, {}, TEN), "Study $d_$").startswith(b"\x89PNG")


def panels(monkeypatch: pytest.MonkeyPatch, table: list[study_report.Line]) -> list[Axes]:
    """What `plot_png` draws."""
    drawn: list[Axes] = []
    panel = study_report._panel
    monkeypatch.setattr(study_report, "_panel", lambda axes, *rest: (drawn.append(axes), panel(axes, *rest)))
    plot_png(table, "Fashion")
    return drawn


def test_the_plot_cuts_no_error_bar_off_and_has_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    study = StudyConfig(twins=False, axes={"recipe": {"a": [], "b": ["train.epochs=3"]}})
    plan = plan_study(study, load_config("fashion"))
    accuracies = dict(zip(plan.trials(), (0.2, 0.8, 0.5, 0.6, 0.6, 0.6), strict=True))
    (panel,) = panels(monkeypatch, lines(plan, accuracies, TEN))
    low, high = panel.get_ylim()
    assert low <= 0.2 and high >= 0.8
    assert not panel.patches  # a bar on an axis that is cut tells a wrong ratio


def test_rows_are_named_after_what_they_are_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"generated": [], "mixed": ["train.data=mixed"], "photos": ["train.data=real"]}
    plan = plan_study(StudyConfig(axes={"data": words}), load_config("fashion"))
    table = lines(plan, {(cell, seed): 0.5 for cell in plan.cells for seed in plan.seeds}, TEN)
    panel = panels(monkeypatch, table)[0]
    names = {text.get_text() for text in panel.get_legend().get_texts()}
    assert names == {"synthetic images", "synthetic and real images", "real images", "real twin"}
    text = markdown(table, 3, "Fashion")
    assert "| c, h_c, and real images |" in text and "Of mixed trainings the generated images count." in text


def test_images_that_failed_make_no_axis_one_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {value: [f"recipe.guidance_scale={value}"] for value in ("1", "2", "7.5")}
    plan = plan_study(StudyConfig(twins=False, axes={"guidance": words}), load_config("fashion"))
    trained_on = dict(zip(plan.cells, (1991, 1987, 1900), strict=True))
    (panel,) = panels(monkeypatch, lines(plan, {}, TEN, trained_on))
    assert panel.get_xlabel() == "guidance" and panel.get_xscale() == "linear"


def test_a_study_of_real_trainings_alone_has_a_plot() -> None:
    plan = plan_study(load_study("fashion"), load_config("fashion"), given=["train.data=real"])
    assert plot_png(lines(plan, {}, TEN), "Real").startswith(b"\x89PNG")


def test_images_are_those_that_were_trained_on() -> None:
    plan = plan_study(StudyConfig(axes={"a": {"x": ["images_per_class=200"]}}), load_config("fashion"))
    (made, twin) = plan.cells
    first, second = lines(plan, {}, TEN, {made: 1990, twin: 1980})
    assert (first.images, first.twin_images, second.images) == (1990, 1980, 1980)
    text = markdown([first, second], 3, "Fashion")
    assert "(1,980 images)" in text and "or the largest there is, whose size is in brackets" in text
    assert "brackets" not in markdown(lines(plan, {}, TEN, {made: 1990, twin: 2000}), 3, "Fashion")
    assert lines(plan, {}, TEN)[0].images == 2000


def test_an_axis_of_any_name_keeps_its_columns_and_the_table_says_where_it_comes_from() -> None:
    plan = plan_study(StudyConfig(twins=False, axes={"a|b": {"x": []}}), load_config("fashion"))
    text = markdown(
        lines(plan, {}, TEN), 3, "Fashion", "python -m jobs.study --set 'recipe.template={{ c | lower }}<b>'"
    )
    assert "| a\\|b | images |" in text
    assert text.startswith("# Fashion\n\n    python -m jobs.study --set 'recipe.template={{ c | lower }}<b>'\n\n")
