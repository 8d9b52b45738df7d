"""Elastic workers: a node of a real cluster is killed, and the training goes on with those that are left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ray_nodes import RayNodes
from tests.faults.training_run import EPOCHS, IMAGES, TrainingRun


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
    assert [line["loss"] for line in metrics[:after]] == pytest.approx(
        [line["loss"] for line in run.undisturbed()[:after]], rel=1e-6
    )
