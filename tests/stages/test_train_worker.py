"""What a training worker says, and which errors it keeps from Ray."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.core.errors import SharedError, WorkError
from pipeline.core.train_config import TrainConfig
from pipeline.stages import train_worker
from pipeline.stages.train_worker import epoch_line
from tests.image_sets import small_config


def test_an_epoch_names_its_training_and_the_time_that_is_left() -> None:
    parts = {"loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1, "images_per_s": 40.0}
    waits = {"first_batch_s": 0.1, "data_wait_s": 0.2, "step_s": 39.7}
    history = [{"epoch": done, **parts, **waits, "seconds": seconds} for done, seconds in ((1, 60.0), (2, 40.0))]
    assert epoch_line(TrainConfig(data="real", seed=3, epochs=5, warmup_epochs=1), history) == (
        "train real, seed 3: epoch 2/5, 2 min 30 s left, loss 0.500 accuracy 0.750 lr 0.1000 "
        "40 images/s (first batch 0.1 s, waits 0.2 s, steps 39.7 s)"
    )


def work(monkeypatch: pytest.MonkeyPatch, run_epochs: Callable[..., None], write_bytes: Callable[..., None]) -> Any:
    """What rank 0 of two workers returns when the loop and the storage are these."""
    rank_0 = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 2)
    monkeypatch.setattr("ray.train.get_context", lambda: rank_0)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("ray.train.report", lambda *_: pytest.fail("rank 0 went to the barrier"))
    monkeypatch.setattr(train_worker, "build_classifier", lambda *_: nn.Linear(1, 1))
    monkeypatch.setattr(train_worker, "distribute", lambda network: network)
    monkeypatch.setattr(train_worker, "restore", lambda _: [])
    monkeypatch.setattr(train_worker, "open_batches", lambda *_: None)
    monkeypatch.setattr(train_worker, "run_epochs", run_epochs)
    run = SimpleNamespace(log_metrics=lambda *_: None, flush=lambda: None)
    job = SimpleNamespace(
        config=small_config(),
        store=SimpleNamespace(write_bytes=write_bytes),
        model_dir="models/x",
        class_shares=np.ones(10) / 10,
        validation=None,
        run=run,
    )
    return train_worker.train_worker({"job": job})


def test_an_error_of_rank_0_alone_reaches_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returned, it would leave the others in the barrier without end."""

    def full(*_: Any) -> None:
        raise WorkError("No space left on device")

    def one_epoch(*arguments: Any) -> None:
        arguments[-1](1, {"seconds": 1.0})

    with pytest.raises(WorkError, match="No space left"):
        work(monkeypatch, one_epoch, full)


def test_an_error_that_all_workers_meet_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(*_: Any) -> None:
        raise SharedError("the loss is not finite")

    found = work(monkeypatch, diverged, lambda *_: None)
    assert found == {"error": "the loss is not finite", "weights_sha256": None}
