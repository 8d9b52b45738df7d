"""What a training worker says."""

from __future__ import annotations

from pipeline.core.train_config import TrainConfig
from pipeline.stages.train_worker import epoch_line


def test_an_epoch_names_its_training_and_the_time_that_is_left() -> None:
    parts = {"loss": 0.5, "accuracy": 0.75, "learning_rate": 0.1, "images_per_s": 40.0}
    waits = {"first_batch_s": 0.1, "data_wait_s": 0.2, "step_s": 39.7}
    history = [{"epoch": done, **parts, **waits, "seconds": seconds} for done, seconds in ((1, 60.0), (2, 40.0))]
    assert epoch_line(TrainConfig(data="real", seed=3, epochs=5, warmup_epochs=1), history) == (
        "train real, seed 3: epoch 2/5, 2 min 30 s left, loss 0.500 accuracy 0.750 lr 0.1000 "
        "40 images/s (first batch 0.1 s, waits 0.2 s, steps 39.7 s)"
    )
