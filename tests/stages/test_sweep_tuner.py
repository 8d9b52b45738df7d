"""What Ray Tune is told of a sweep, and what of a killed one is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config_loading import validate
from pipeline.core.errors import WorkError
from pipeline.core.sweep_config import SweepConfig
from pipeline.stages.sweep_trial import COST, EPOCH, PROJECTED_COST, SweepJob, epoch_facts
from pipeline.stages.sweep_tuner import EXPERIMENT, GridPoints, Limiter, build_tuner, has_state, search
from tests.image_sets import small_config

SPACE: dict[str, Any] = {"train.learning_rate": {"loguniform": [0.1, 0.8]}}
METRICS = {EPOCH: 2, "val_accuracy": 0.5, "val_loss": 1.0, "accuracy": 0.5, "loss": 1.0}


def job(root: Path, **more: Any) -> SweepJob:
    return SweepJob(validate(SweepConfig, {"space": SPACE, **more}), small_config(), Store.open(str(root)))


def test_a_search_looks_at_what_a_trial_would_cost_to_its_end() -> None:
    """Optuna takes a trial that was stopped for a finished one, so what it has spent so far would look cheap."""
    train = small_config(epochs=8, num_workers=2).train
    facts = epoch_facts(METRICS, 3.0, 10.0, train, 0.0)
    assert facts[COST] == 3.0 + 20.0 and facts[PROJECTED_COST] == 3.0 + 80.0
    last = epoch_facts({**METRICS, EPOCH: 8}, 3.0, 10.0, train, 0.0)
    assert last[COST] == last[PROJECTED_COST]
    both = search(validate(SweepConfig, {"space": SPACE, "objectives": ["accuracy", "cost"]}))
    assert both.metric == ["val_accuracy", PROJECTED_COST]


def test_a_resumed_search_has_the_slots_of_this_call(tmp_path: Path) -> None:
    before = Limiter(search(job(tmp_path).sweep), 5)
    again = Limiter(search(job(tmp_path).sweep), 2)
    again.set_state(before.get_state())
    assert again.max_concurrent == 2
    points = GridPoints(max_concurrent=2)
    points.set_state(GridPoints(max_concurrent=5).get_state())
    assert points.max_concurrent == 2


def test_a_sweep_that_was_killed_before_its_first_state_begins_anew(tmp_path: Path) -> None:
    """Ray Tune writes tuner.pkl seconds before the state of its trials, and calls that restorable."""
    for _ in range(2):
        tuner = build_tuner(job(tmp_path), "sweeps/x", [], 2, retry_failed=False)
        assert not tuner._local_tuner._is_restored
    assert (tmp_path / "sweeps/x" / EXPERIMENT / "tuner.pkl").exists()


@pytest.mark.parametrize(
    ("states", "found"), [({}, False), ({"1": "[]"}, False), ({"1": "[]", "2": "[1]"}, True), ({"2": "[1]"}, True)]
)
def test_a_state_counts_from_its_first_trial_on(tmp_path: Path, states: dict[str, str], found: bool) -> None:
    store = Store.open(str(tmp_path))
    for name, trials in states.items():
        store.write_bytes(f"t/experiment_state-{name}.json", f'{{"trial_data": {trials}}}'.encode())
    assert has_state(store, "t") == found


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("t/experiment_state-1.json", b'{"trial_')
    with pytest.raises(WorkError, match="damaged"):
        has_state(store, "t")
