"""A sweep's charts as MLflow's own pages keep them: a saved view, which is a tag of an experiment.

The format is not documented; it is that of MLflow 3.17's pages, and tests/browser/test_mlflow.py looks at them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.core.credentials import covered
from pipeline.core.tracking_uri import ui_command

VIEW_TAG = "mlflow.sharedViewState."
"""A view's tag is this and its key, which the address of the view names too."""
UI_SERVER = "http://127.0.0.1:5000"
"""Where `mlflow ui` serves without options."""
ACCURACY, COST = "val_accuracy", "cost_device_s"
"""Metrics of a trial's run; more curves are drawn of `CURVES`."""
CURVES = (ACCURACY, "loss")


def chart_settings(searched: Iterable[str], runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which searched settings can be an axis: parameters that every run has, and that are not all the same.

    MLflow leaves a run that lacks one of the axes out of the chart. So a setting of some of the trials only is none.

    Args:
        searched: keys of the space.
        runs: parameters of each trial's run, with dotted names.
    """
    shared = [key for key in searched if all(key in run for run in runs)]
    return [key for key in shared if len({str(run[key]) for run in runs}) > 1]


def sweep_view(name: str, parent_run: str, settings: Sequence[str], created_s: float) -> str:
    """The tag's value for a sweep: parallel coordinates, learning curves, accuracy against cost.

    Args:
        name: of the view, as MLflow's menu of views shows it.
        parent_run: the sweep's MLflow run; only runs below it are shown.
        settings: the axes beside cost and accuracy.
        created_s: seconds since 1970.
    """
    first, second = _section(f"{name}: settings", columns=1, height=420), _section(f"{name}: curves", columns=3)
    scatter = {"xaxis": {"key": COST, "type": "METRIC"}, "yaxis": {"key": ACCURACY, "type": "METRIC"}}
    state = {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_run}'",
        "orderByKey": f"metrics.`{ACCURACY}`",  # in the order of their dates they would be folded away below the sweep
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "isAccordionReordered": True,  # keeps the order of the sections
        "compareRunSections": [first, second],
        "compareRunCharts": [
            _chart(first, "PARALLEL", selectedParams=[*settings], selectedMetrics=[COST, ACCURACY]),
            *(_chart(second, "LINE", metricKey=key, selectedMetricKeys=[key], xAxisKey="step") for key in CURVES),
            _chart(second, "SCATTER", **scatter),
        ],
    }
    created_ms = int(created_s * 1000)
    return json.dumps({"name": name, "createdAt": created_ms, "updatedAt": created_ms, "state": json.dumps(state)})


def view_path(experiment_id: str, key: str) -> str:
    """A view's address below that of the server."""
    query = f"viewStateShareKey={key}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{query}"


def how_to_open(uri: str, path: str) -> str:
    """What a user does to see a page of MLflow's: the address, for a database the command that serves it before.

    Args:
        uri: tracking URI.
        path: of the page, as `view_path`.
    """
    if uri.startswith("http"):
        return f"{covered(uri).rstrip('/')}/{path}"
    return f"{ui_command(uri)}, then {UI_SERVER}/{path}"


def _section(title: str, columns: int, height: int = 360) -> dict[str, Any]:
    flags = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": title, "name": title, "columns": columns, "cardHeight": height, **flags}


def _chart(section: Mapping[str, Any], kind: str, **rest: Any) -> dict[str, Any]:
    flags = {"runsCountToCompare": 100, "deleted": False, "isGenerated": False}
    name = f"{section['uuid']} {kind} {rest.get('metricKey', '')}"
    return {"uuid": name, "type": kind, "metricSectionId": section["uuid"], **flags, **rest}
