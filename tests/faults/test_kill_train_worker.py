"""SIGKILL one training worker in the middle: the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.training_run import EPOCHS, IMAGES, TrainingRun, training_workers


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), -1])
def test_run_finishes_after_a_worker_was_killed(victim: int, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    process = run.start()
    try:
        run.wait_for_epochs(process, 2)
        workers = sorted(training_workers(process.pid))
        assert len(workers) == 2, workers
        os.kill(workers[victim], signal.SIGKILL)
        run.wait_for_end(process)
    finally:
        process.kill()
    ((after, workers_then),) = run.resumed()
    assert 1 <= after < EPOCHS and workers_then == 2
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == list(range(1, EPOCHS + 1))
    assert [line["images"] for line in metrics] == [IMAGES] * EPOCHS
    assert [line["loss"] for line in metrics] == pytest.approx([line["loss"] for line in run.undisturbed()], rel=1e-6)
