"""A study's reports: every cell beside its real twin over all seeds, and the list of those that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.core.finished import finished
from pipeline.core.report_identity import report_identity
from pipeline.core.study_plan import Cell
from pipeline.core.study_results import PAGES
from pipeline.core.text_table import markdown_link
from pipeline.stages.evaluate import evaluate

if TYPE_CHECKING:
    from pipeline.stages.study import Study


def write_pages(study: Study, say: Callable[[str], object]) -> None:
    """A report of every chosen cell beside its real twin (spider plot, gap); pages.md lists these and all that earlier
    calls made of the same test sets, in the plan's order, and is whole after each report.

    Args:
        study: whose test sets are open and whose chosen trainings are done.
        say: takes a line for each page, and for each that cannot be made.
    """
    pairs, reports = _pairs_and_reports(study)
    for cell, models in pairs.items():
        if cell.config not in study.chosen:
            continue
        if not all(study.is_trained(path) for found in models.values() for path in found):
            say(f"no page of {cell.name}: its results are here, but not all its models are any more")
            continue
        reports[cell] = evaluate(cell.config, study.store, models, say)
        _write_list(study, reports)
        say(f"page of {cell.name}: {study.store.uri(reports[cell]['report'])}")


def list_pages(study: Study) -> None:
    """Write pages.md anew from the reports of this very plan that are there: another one may have left its list."""
    _write_list(study, _pairs_and_reports(study)[1])


def _pairs_and_reports(study: Study) -> tuple[dict[Cell, dict[str, list[str]]], dict[Cell, dict[str, Any]]]:
    pairs = {cell: models for cell in study.plan.cells if (models := _pair(study, cell)) is not None}
    found = {cell: _made(study, cell, models) for cell, models in pairs.items()}
    return pairs, {cell: report for cell, report in found.items() if report is not None}


def _pair(study: Study, cell: Cell) -> dict[str, list[str]] | None:
    """Directories of a cell's models and of its twin's; None for a cell that is a twin or has none."""
    twin = study.plan.twin_of(cell)
    if cell.is_real or twin is None:
        return None
    pair = {cell.config.train.data: cell, "real": twin}
    return {group: [study.models[one, seed] for seed in study.plan.seeds] for group, one in pair.items()}


def _made(study: Study, cell: Cell, models: Mapping[str, list[str]]) -> dict[str, Any] | None:
    """Manifest of the report of a pair, when it is there and of the models as they are."""
    paths = [path for found in models.values() for path in found]
    report_id = report_identity(cell.config.evaluate, study.sets_of(cell.config), paths)[1]
    page = finished(study.store, f"reports/{report_id}", "report")
    weights = (page or {}).get("weights", {})  # older reports do not tell
    return None if any(study.has_other_weights(path, weights.get(path)) for path in paths) else page


def _write_list(study: Study, reports: Mapping[Cell, Mapping[str, Any]]) -> None:
    found = [(cell, reports[cell]) for cell in study.plan.cells if cell in reports]
    text = [f"# {study.title}: each setting beside its real twin", ""]
    text += [
        f"* {markdown_link(cell.name, '../../' + page['report'])}: gap {_gap(cell, page):+.3f}" for cell, page in found
    ]
    text += [] if found else ["None yet."]
    study.store.write_bytes(f"{study.directory}/{PAGES}", ("\n".join(text) + "\n").encode())


def _gap(cell: Cell, page: Mapping[str, Any]) -> float:
    """Top-1 of the real twin less the cell's; a report itself has it for models of synthetic images alone."""
    return float(page["real_top1"] - page[f"{cell.config.train.data}_top1"])
