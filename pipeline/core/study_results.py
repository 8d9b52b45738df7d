"""What a study has measured so far: one line per scored training, by its report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError
from pipeline.core.lease import lease
from pipeline.core.model_identity import WEIGHTS
from pipeline.core.study_plan import Cell
from pipeline.core.study_sets import CORRUPTED, TOP5

RESULTS = "results.jsonl"
"""Its lines: the model, its numbers, and the report, whose id holds the test sets as they lay there."""

PAGES = "pages.md"
"""The list of a study's reports."""

Line = dict[str, Any]


def result_line(cell: Cell, seed: int, model: Mapping[str, Any], verdict: Line, metrics: Line) -> Line:
    """One line.

    Args:
        cell: that was trained.
        seed: of the training.
        model: its manifest, with `model_dir`.
        verdict: manifest of its report.
        metrics: what that says.
    """
    group = cell.config.train.data
    corrupted = metrics["corruptions"] and metrics["corruptions"]["groups"][group]["corrupted"]["mean"]
    return {
        "model_dir": model["model_dir"],
        "weights_sha256": model["files"][WEIGHTS],
        "test_set": cell.config.evaluate.test_set,
        "cell": cell.name,
        "seed": seed,
        "data": group,
        "images": model["num_images"],
        "epochs": model["epochs"],
        "top1": verdict[f"{group}_top1"],
        "top5": metrics["groups"][group]["top5_mean"],
        "other_test_sets": {
            name: one["groups"][group][one["headline"]]["mean"]
            for name, one in metrics["test_sets"].items()
            if name != verdict["main"]
        },
        "corrupted_top1": corrupted,
        "train_images_per_s": model["images_per_s"],
        "train_seconds": model["seconds"],
        "report": verdict["report"],
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def read_results(store: Store, directory: str) -> dict[str, Line]:
    """The lines of a study's folder by the id of their report, those of other test sets and other plans too.

    Raises:
        WorkError: the file is damaged.
    """
    path = f"{directory}/{RESULTS}"
    text = store.read_bytes(path).decode() if store.exists(path) else ""
    try:
        found = [json.loads(line) for line in text.split("\n") if line]  # a name may hold U+2028, where lines end, too
        return {_report_id(line): line for line in found}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise WorkError(f"{store.uri(path)} is damaged ({error}); move it away and run again") from error


def keep_result(store: Store, directory: str, results: dict[str, Line], line: Line) -> None:
    """Add a line to the results and their file, which is written whole and at once.

    Lines that other commands of the study have put there stay, and come into `results`, too. One at a time writes.

    Raises:
        WorkError: the file is damaged, or the storage cannot be read or written.
    """
    with lease(store, f"{directory}/lease"):
        results.update(read_results(store, directory))
        results[_report_id(line)] = line
        text = "".join(json.dumps(kept, sort_keys=True, ensure_ascii=False) + "\n" for kept in results.values())
        store.write_bytes(f"{directory}/{RESULTS}", text.encode())


def set_columns(line: Mapping[str, Any]) -> dict[str, float]:
    """The second table's values of one line; an older version kept none."""
    found = {TOP5: line.get("top5"), **line.get("other_test_sets", {}), CORRUPTED: line.get("corrupted_top1")}
    return {name: value for name, value in found.items() if value is not None}


def _report_id(line: Mapping[str, Any]) -> str:
    """From `reports/<id>/report.html`."""
    return str(line["report"]).split("/")[-2]
