"""What one training worker runs: data, network, checkpoint, loop. Rank 0 writes files, log lines and MLflow points."""

from __future__ import annotations

import json
import logging
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import nn

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.classifier import build_classifier, weights_to_bytes
from pipeline.core.config import RunConfig
from pipeline.core.errors import SharedError
from pipeline.core.image_batches import ImageBatches, MemoryBatches, num_forwards
from pipeline.core.mixing import MemoryPasses, MixedBatches, RealImages, block_of
from pipeline.core.model_identity import WEIGHTS
from pipeline.core.separate_batch_norm import separate_batch_norms
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_loop import EpochMetrics, run_epochs
from pipeline.core.training_state import TrainingState, ddp_options, start_training
from pipeline.core.validation import validate
from pipeline.stages.image_streams import StreamBatches, StreamPasses
from pipeline.stages.progress import duration
from pipeline.stages.worker_job import METRICS, REAL_STREAM, STREAM, WorkerJob

_FACTS = "state.json"
logger = logging.getLogger(__name__)


def train_worker(settings: dict[str, Any]) -> dict[str, str | None]:
    """Ray Train's loop function: `settings["job"]` is a `WorkerJob`.

    Returns:
        `error`: None, or the message of a `SharedError` (raising it would make Ray try the same again);
        `weights_sha256`: of the published weights, from rank 0.

    Raises:
        WorkError: this worker alone cannot go on, e.g. rank 0 on a full disk. The others wait for it in Ray's barrier,
            so it must reach Ray, which ends them all and starts them again up to `train.max_failures` times.
    """
    job: WorkerJob = settings["job"]
    config = job.config.train
    logger.setLevel(logging.INFO)
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train repeats each epoch's metrics there, from every worker
    torch.set_num_threads(config.torch_threads)
    rank = ray.train.get_context().get_world_rank()
    network = build_classifier(config, len(job.class_shares))
    num_workers = ray.train.get_context().get_world_size()
    if config.data == "mixed" and config.separate_batch_norm:
        images = config.batch_size // num_workers // num_forwards(config, num_workers)
        network = separate_batch_norms(network, block_of(config), images)
    if config.sync_batch_norm and num_workers > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    model = distribute(network)
    state = start_training(config, network, model, job.class_shares)
    history = restore(state)
    if rank == 0 and history:
        logger.info("train: going on after epoch %d of %d with %d workers", len(history), config.epochs, num_workers)
    reporter = Reporter(job, state, history, rank)
    try:
        batches = open_batches(job, rank)
        device = ray.train.torch.get_device()
        run_epochs(config, state, batches, device, len(history), reporter.on_epoch)
    except SharedError as error:
        return {"error": str(error), "weights_sha256": None}
    finally:
        reporter.close()
    if rank != 0:
        return {"error": None, "weights_sha256": None}
    weights = weights_to_bytes(state.trained)
    job.store.write_bytes(f"{job.model_dir}/{WEIGHTS}", weights)
    return {"error": None, "weights_sha256": sha256_bytes(weights)}


def distribute(network: nn.Module) -> nn.Module:
    """The network on this worker's device, in DDP when there are more workers."""
    with ddp_options() as options:
        model: nn.Module = ray.train.torch.prepare_model(network, parallel_strategy_kwargs=options)
    return model


def open_batches(job: WorkerJob, rank: int) -> ImageBatches:
    """This worker's part of the data."""
    config = job.config.train
    num_workers = ray.train.get_context().get_world_size()
    if config.data != "mixed":
        return open_images(job, config.batch_size, rank, num_workers)
    block = block_of(config)
    real = block.reals(config.batch_size)
    passes: RealImages
    if job.real_arrays is None:
        passes = StreamPasses(ray.train.get_dataset_shard(REAL_STREAM), real // num_workers, config.seed)
    else:
        passes = MemoryPasses(*ray.get(job.real_arrays), config.seed, real, rank, num_workers)
    return MixedBatches(open_images(job, config.batch_size - real, rank, num_workers), passes, block)


def open_images(job: WorkerJob, batch_size: int, rank: int, num_workers: int) -> ImageBatches:
    """This worker's part of the images, of a mixed training the synthetic ones; `batch_size` of them in a batch."""
    seed = job.config.train.seed
    if job.arrays is None:
        shard = ray.train.get_dataset_shard(STREAM)
        return StreamBatches(shard, job.num_images // batch_size, batch_size // num_workers, job.shard_size, seed)
    return MemoryBatches(*ray.get(job.arrays), seed, batch_size, rank, num_workers)


class Reporter:
    """After each epoch: metrics.jsonl, a log line and an MLflow point from rank 0, checkpoints, Ray's barrier.

    Args:
        job: of the worker.
        state: of the training.
        history: metrics of the epochs that are done, extended here.
        rank: of the worker.
    """

    def __init__(self, job: WorkerJob, state: TrainingState, history: list[EpochMetrics], rank: int) -> None:
        self._job = job
        self._state = state
        self._history = history
        self._rank = rank
        self._validation = None if job.validation is None or rank != 0 else ray.get(job.validation)
        self._tracker = ThreadPoolExecutor(1)  # importing MLflow, or a slow server, must not hold up the other workers

    def on_epoch(self, done: int, metrics: EpochMetrics) -> None:
        """Called by every worker when `done` epochs are done."""
        ended = time.time()
        if self._validation is not None:  # with rank 0's batch norm, which is the one that is kept
            metrics = {**metrics, **validate(self._state.trained, self._validation, self._job.config.train)}
        self._history.append({"epoch": done, "ended": ended, **metrics})
        seconds = sum(epoch["seconds"] for epoch in self._history)
        report = {"epoch": done, "training_seconds": seconds, **metrics}
        settings = self._job.config.train
        if self._rank == 0:
            write_metrics(self._job.store, self._job.model_dir, self._history)
            self._tracker.submit(self._job.run.log_metrics, metrics, done, ended)
            logger.info("%s", epoch_line(settings, self._history))
        due = done % settings.checkpoint_every_epochs == 0 or done == settings.epochs
        if not due or self._rank != 0:
            ray.train.report(report)
            return
        with tempfile.TemporaryDirectory() as directory:
            save_checkpoint(Path(directory), self._state, self._history, self._job.config)
            ray.train.report(report, ray.train.Checkpoint.from_directory(directory))

    def close(self) -> None:
        """Send what MLflow has not got yet."""
        if self._rank == 0:
            self._tracker.submit(self._job.run.flush)
        self._tracker.shutdown(wait=True)


def epoch_line(settings: TrainConfig, history: Sequence[EpochMetrics]) -> str:
    """The last epoch for people, who may have several trainings side by side: which one, how good, how long still."""
    done, metrics = len(history), history[-1]
    left = (settings.epochs - done) * statistics.fmean(epoch["seconds"] for epoch in history)
    return (
        f"train {settings.data}, seed {settings.seed}: epoch {done}/{settings.epochs}, {duration(left)} left, "
        f"loss {metrics['loss']:.3f} accuracy {metrics['accuracy']:.3f} lr {metrics['learning_rate']:.4f} "
        f"{metrics['images_per_s']:.0f} images/s (first batch {metrics['first_batch_s']:.1f} s, waits "
        f"{metrics['data_wait_s']:.1f} s, steps {metrics['step_s']:.1f} s)"
    )


def write_metrics(store: Store, model_dir: str, history: list[EpochMetrics]) -> None:
    """The metrics of all epochs, one JSON object per line; a repeated epoch replaces its older line."""
    lines = "".join(json.dumps(metrics) + "\n" for metrics in history)
    store.write_bytes(f"{model_dir}/{METRICS}", lines.encode())


def save_checkpoint(directory: Path, state: TrainingState, history: list[EpochMetrics], config: RunConfig) -> None:
    """A file of every part of the state; config, rows seen and the metrics of the epochs done."""
    for part, values in state.state_dicts().items():
        torch.save(values, directory / f"{part}.pt")
    rows_seen = sum(metrics["images"] for metrics in history)
    facts = {"history": history, "rows_seen": rows_seen, "config": config.model_dump(mode="json")}
    (directory / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def restore(state: TrainingState) -> list[EpochMetrics]:
    """Load Ray's last checkpoint into the state; the metrics so far, empty without a checkpoint."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as name:
        files = Path(name).glob("*.pt")
        state.load_state_dicts({f.stem: torch.load(f, map_location="cpu", weights_only=True) for f in files})
        history: list[EpochMetrics] = json.loads((Path(name) / _FACTS).read_text(encoding="utf-8"))["history"]
    return history
