"""SIGKILL one training worker in the middle: the run ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from pipeline.core.datasets import as_rgb32
from tests.faults.training_run import EPOCHS, IMAGES, TrainingRun, training_workers
from tests.image_sets import pictures_by_class


def finish_with_a_loss(run: TrainingRun, victim: int) -> None:
    """Start it, kill one of its two workers after two epochs, and see it end with all epochs whole."""
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


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), -1])
def test_run_finishes_after_a_worker_was_killed(victim: int, tmp_path: Path) -> None:
    run = TrainingRun(tmp_path)
    finish_with_a_loss(run, victim)
    losses = [line["loss"] for line in run.metrics()]
    assert losses == pytest.approx([line["loss"] for line in run.undisturbed()], rel=1e-6)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(900)
def test_a_stream_begins_its_epoch_again_and_ends_near_an_undisturbed_training(tmp_path: Path) -> None:
    """The order of a stream depends on timing: the losses are alike, not the same."""
    for wnid, pictures in zip(load_class_table("fashion_mnist").wnids, pictures_by_class().values(), strict=True):
        (tmp_path / "real" / wnid).mkdir(parents=True)
        for number in range(IMAGES // 10):
            image = as_rgb32(pictures[number : number + 1])[0]
            Image.fromarray(image).save(tmp_path / "real" / wnid / f"{number}.png")
    run = TrainingRun(tmp_path, ingest="stream", real_data=tmp_path / "real")
    finish_with_a_loss(run, -1)
    losses, undisturbed = ([line["loss"] for line in metrics] for metrics in (run.metrics(), run.undisturbed()))
    assert losses == pytest.approx(undisturbed, abs=0.5)
