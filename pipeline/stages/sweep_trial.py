"""One trial of a sweep, as Ray Tune runs it: its images, its training, its score. It holds no resources itself.

Its pool of actors and its training workers reserve theirs, one after the other, and never more than the slot that
`pipeline.stages.sweep` counts for a trial: so trials cannot wait for each other's resources.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.search_space import Point, as_point, lay_over
from pipeline.core.sweep_config import SweepConfig
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_images import Arrays
from pipeline.core.validation_images import load_validation
from pipeline.stages.shared_images import device_seconds, ensure_images, image_summaries
from pipeline.stages.train import LEASE, read_metrics, train
from pipeline.stages.trial_workers import WorkersTold, begin_trial
from pipeline.stages.worker_job import Watch

ACCURACY, COST, EPOCH = "val_accuracy", "cost", "epoch"
"""Metrics of a trial after every epoch: on the validation images, device seconds so far, epochs done."""
PROJECTED_COST = "projected_cost"
"""Device seconds to the last epoch at the speed so far, which a search looks at: a trial that is stopped early has
spent less than its settings cost."""
SLOT_S = "slot_s"
"""Seconds since the trial has its slot."""


@dataclass(frozen=True)
class SweepJob:
    """What all trials of a sweep share.

    Args:
        sweep: how it searches.
        base: the preset.
        store: the storage root.
        parent_run: the sweep's MLflow run, None without tracking.
    """

    sweep: SweepConfig
    base: RunConfig
    store: Store
    parent_run: str | None = None

    @property
    def validation_id(self) -> str:
        """Names the validation images."""
        settings = self.sweep.validation
        source = resolve_recipe(self.base).hash if settings.source == "synthetic" else self.base.classes
        return content_hash([settings.model_dump(mode="json"), source])[:ID_LENGTH]

    def config(self, point: Point) -> RunConfig:
        """The run of a point. A pool never grows out of its trial's slot. Raises `InputError`."""
        config = lay_over(self.base, self.sweep.base, point)
        return config.model_copy(update={"generate": config.generate.model_copy(update={"max_actors": None})})


class EpochReport(TuneReportCallback):
    """Hands Tune the metrics of each epoch that a search looks at, the cost so far among them.

    The last epoch's are left to the trial itself: a trial that is stopped by them would leave no model.

    Args:
        image_s: device seconds of the trial's images.
        train: the trial's training.
        begun: when the trial got its slot, seconds since 1970.
    """

    def __init__(self, image_s: float, train: TrainConfig, begun: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._image_s = image_s
        self._train = train
        self._begun = begun

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        """Called by Ray Train's controller with what every worker reported, rank 0 first."""
        first = metrics[0]
        if first[EPOCH] < self._train.epochs:
            facts = epoch_facts(first, self._image_s, first["training_seconds"], self._train, self._begun)
            self._training_actor_item_queue.put(facts)


def epoch_facts(
    metrics: Mapping[str, float], image_s: float, training_s: float, train: TrainConfig, begun: float
) -> dict[str, float]:
    """What Tune is told of an epoch; `training_s` is the time of training to the end of it."""
    spent = training_s * train.num_workers
    names = (EPOCH, ACCURACY, "val_loss", "accuracy", "loss")
    return {
        **{name: metrics[name] for name in names},
        COST: image_s + spent,
        PROJECTED_COST: image_s + spent * train.epochs / metrics[EPOCH],
        SLOT_S: time.time() - begun,
    }


def run_trial(job: SweepJob, suggested: Mapping[str, Any]) -> None:
    """Runs in a process of Tune's.

    Raises:
        InputError: the point makes no valid run, or its images cannot be had.
        WorkError: the making of images or the training failed; another try goes on where it was.
    """
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a line per execution says nothing to a user
    config = job.config(as_point(job.sweep, suggested))
    recipe = resolve_recipe(config)
    trial = tune.get_context().get_trial_id()
    keeper = begin_trial(trial)
    validation = load_validation(job.base, job.sweep.validation, job.store, config)
    ray.get(keeper.take_slot.remote(trial))
    begun, image_s = time.time(), 0.0
    try:
        if config.train.data != "real":
            ensure_images(config, job.store)
            image_s = device_seconds(config, image_summaries(config, recipe, job.store))
        callbacks = [EpochReport(image_s, config.train, begun), WorkersTold(keeper, trial)]
        model_dir = model_directory(model_identity(config, recipe)[1])
        key = uuid.uuid4().hex
        ray.get(keeper.keep_lease.remote(trial, job.store, f"{model_dir}/{LEASE}", key))
        watch = Watch(validation, job.validation_id, callbacks, key)
        model = train(config, job.store, watch, job.parent_run)
        last = read_metrics(job.store, model_dir)[-1]
        if model.get("validation") != job.validation_id:  # trained before, by another job
            last |= score(job.store, model_dir, validation)
    finally:
        ray.get(keeper.release.remote(trial))
    tune.report(epoch_facts(last, image_s, model["seconds"], config.train, begun))


def score(store: Store, model_dir: str, validation: Arrays) -> dict[str, float]:
    """What `pipeline.core.validation.validate` says of a finished model. Raises as `load_classifier`."""
    from pipeline.core.classifier import load_classifier
    from pipeline.core.validation import validate

    found = load_classifier(store, model_dir)
    return validate(found.model, validation, found.train)
