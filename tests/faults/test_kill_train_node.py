"""Elastic workers: a node is killed, the training goes on with those that are left, and grows back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.ray_nodes import RayNodes
from tests.faults.training_run import END_TIMEOUT_S, EPOCHS, IMAGES, TrainingRun


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_lost_node_leaves_a_training_with_fewer_workers(tmp_path: Path) -> None:
    nodes = RayNodes(workers=2)  # of one CPU each: one training worker each
    run = TrainingRun(tmp_path, min_workers=1)
    try:
        process = run.start(RAY_ADDRESS=nodes.address)
        try:
            run.wait_for_epochs(process, 2)
            nodes.kill_worker(nodes.workers[0])
            run.wait_for_end(process)
        finally:
            process.kill()
    finally:
        nodes.close()
    ((after, workers),) = run.resumed()
    assert 1 <= after < EPOCHS and workers == 1
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == list(range(1, EPOCHS + 1))
    assert [line["images"] for line in metrics] == [IMAGES] * EPOCHS
    # Two workers normalise 8 images each, one 16: the global batches are the same, the losses nearly.
    losses, undisturbed = ([line["loss"] for line in lines] for lines in (metrics, run.undisturbed()))
    assert losses[:after] == pytest.approx(undisturbed[:after], rel=1e-6)
    assert losses[after:] == pytest.approx(undisturbed[after:], abs=0.4)  # they fall from 2.3, chance, to 1.4


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_training_grows_back_when_a_node_comes(tmp_path: Path) -> None:
    """Ray looks for room once a minute, so this training is longer than anything waits for it."""
    nodes = RayNodes(workers=2)
    run = TrainingRun(tmp_path, min_workers=1, epochs=600)
    try:
        process = run.start(RAY_ADDRESS=nodes.address)
        try:
            run.wait_for_epochs(process, 2)
            nodes.kill_worker(nodes.workers[0])
            wait_for(lambda: len(run.resumed()) == 1)
            nodes.add_worker()
            wait_for(lambda: len(run.resumed()) == 2)
            run.wait_for_epochs(process, run.resumed()[1][0] + 2)
        finally:
            process.kill()
    finally:
        nodes.close()
    (first, few), (second, many) = run.resumed()
    assert (few, many) == (1, 2) and 1 <= first <= second
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == list(range(1, len(metrics) + 1)) and len(metrics) >= second + 2
    assert {line["images"] for line in metrics} == {IMAGES}


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
