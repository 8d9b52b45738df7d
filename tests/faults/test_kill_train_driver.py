"""SIGKILL the driver of a training and start it again: it goes on from the last checkpoint, sample by sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.training_run import EPOCHS, IMAGES, TrainingRun


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_started_again_the_losses_are_those_of_an_undisturbed_training(tmp_path: Path) -> None:
    run = TrainingRun(tmp_path, checkpoint_every_epochs=2)
    process = run.start()
    try:
        run.wait_for_epochs(process, 3)  # one epoch beyond the checkpoint
    finally:
        process.kill()
        process.wait()
    done = run.epochs_done()
    again = run.start()
    try:
        run.wait_for_end(again)
    finally:
        again.kill()
    ((after, _),) = run.resumed()
    assert after in (2, 4) and after <= done < EPOCHS
    metrics = run.metrics()
    assert [line["epoch"] for line in metrics] == list(range(1, EPOCHS + 1))
    assert [line["images"] for line in metrics] == [IMAGES] * EPOCHS
    # A sample that was skipped, or seen twice since the checkpoint, would be another loss.
    assert [line["loss"] for line in metrics] == pytest.approx([line["loss"] for line in run.undisturbed()], rel=1e-6)
