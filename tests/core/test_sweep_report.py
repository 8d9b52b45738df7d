from __future__ import annotations

import csv
import io
from typing import Any

from pipeline.core.sweep_report import TrialResult, best_trial, in_order, markdown, pareto_front, plot_png, to_csv

FACTS = {
    "images_asked": 900,
    "images_made": 300,
    "images_reused": 600,
    "image_device_s_spent": 30.0,
    "image_device_s_saved": 60.0,
    "finished": 3,
    "stopped_early": 1,
    "failed": 1,
    "slots": 2,
    "slot_use": 0.95,
    "trial_s": 190.0,
    "wall_s": 100.0,
}


def trial(name: str, accuracy: float | None, cost: float | None, **changes: Any) -> TrialResult:
    values = {"state": "finished", "point": {"train.head": name}, "images_per_class": 4, "epochs": 2, **changes}
    return TrialResult(
        trial=name, accuracy=accuracy, cost=cost, seconds=1.0, ended=0.0, model_dir=f"models/{name}", **values
    )


TRIALS = [
    trial("cheap", 0.5, 1.0),
    trial("beaten", 0.5, 2.0),
    trial("dear", 0.7, 3.0),
    trial("stopped", 0.9, 0.5, state="stopped early"),
    trial("broken", None, None, state="failed", reason="a <b> | reason"),
]


def test_the_front_holds_what_nothing_beats_among_finished_trials() -> None:
    assert [t.trial for t in pareto_front(TRIALS)] == ["cheap", "dear"]
    best = best_trial(TRIALS)
    assert best is not None and best.trial == "dear" and best_trial(TRIALS[3:]) is None


def test_of_equal_accuracy_the_cheaper_one_is_best() -> None:
    found = best_trial(TRIALS[:2])
    assert found is not None and found.trial == "cheap"


def test_the_table_lists_all_trials_in_order_and_failures_with_their_reason() -> None:
    text = markdown(TRIALS, "Sweep x", "real images", FACTS)
    assert [t.trial for t in in_order(TRIALS)] == ["dear", "cheap", "beaten", "stopped", "broken"]
    assert "| dear | dear | 0.7000 | 3.0 | 2 | yes |" in text and "0.9000 (stopped early)" in text
    assert "* broken (train.head=broken): a &lt;b> \\| reason" in text
    assert "900 asked for, 300 made, 600 reused" in text and "use 0.950" in text


def test_csv_and_plot() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(TRIALS))))
    assert [row["front"] for row in rows] == ["1", "1", "0", "0", "0"] and rows[-1]["val_accuracy"] == ""
    assert rows[0]["train.head"] == '"dear"' and rows[0]["model"] == "models/dear"
    assert plot_png(TRIALS, "a $title").startswith(b"\x89PNG")
