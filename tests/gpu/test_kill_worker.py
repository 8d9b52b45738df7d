"""SIGKILL the training worker that holds the GPU: its successor gets the card, and the run ends as if nothing was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.classes import load_class_table
from tests.faults.training_run import EPOCHS, IMAGES, TrainingRun, training_workers

pytestmark = pytest.mark.gpu

GPU = {"device": "cuda", "num_workers": 1, "mixed_precision": "bfloat16"}


def write_pictures(folder: Path) -> Path:
    """Noise around a grey of its own for each class: to be learnt, and no data set to be found on a GPU machine."""
    rng = np.random.default_rng(0)
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        (folder / wnid).mkdir(parents=True)
        for number in range(IMAGES // 10):
            pixels = np.clip(rng.normal(25 * label, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / wnid / f"{number}.png")
    return folder


@pytest.mark.timeout(300)
def test_the_next_worker_gets_the_gpu_and_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "real")
    run, undisturbed = (TrainingRun(tmp_path / name, real_data=pictures, **GPU) for name in ("killed", "undisturbed"))
    for each in (run, undisturbed):
        each.root.parent.mkdir()
    process = run.start()
    try:
        run.wait_for_epochs(process, 2)
        (worker,) = training_workers(process.pid)
        os.kill(worker, signal.SIGKILL)
        run.wait_for_end(process)
    finally:
        process.kill()
    undisturbed.wait_for_end(undisturbed.start())
    ((after, workers),) = run.resumed()
    assert 1 <= after < EPOCHS and workers == 1
    losses, expected = ([line["loss"] for line in each.metrics()] for each in (run, undisturbed))
    assert len(losses) == EPOCHS
    assert losses == pytest.approx(expected, abs=0.1)  # a GPU adds up in another order each time
