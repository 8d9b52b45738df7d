"""Images -> model: the driver of a training. It plans, starts Ray Train, and publishes what the workers made."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from functools import partial
from typing import Any

# All documented settings of Ray Train; must be set before it is imported. Each saves a process or a wait of seconds.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")  # default 2: a finished run waits that long
os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # prints every line of a worker twice
# Nodes are only taken away from under a cluster; it would be one more process here.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", str(int("RAY_ADDRESS" in os.environ)))

import ray
import ray.exceptions
import ray.train
import ray.train.torch
from pyarrow import fs

from pipeline.core.artifact import MANIFEST, Store, read_manifest
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import ID_LENGTH
from pipeline.core.image_batches import check_batches
from pipeline.core.lease import lease
from pipeline.core.model_identity import (
    CONFIG,
    WEIGHTS,
    model_directory,
    model_identity,
    run_parameters,
)
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.train_config import TrainConfig
from pipeline.core.versions import installed_versions
from pipeline.stages.data_context import quiet
from pipeline.stages.ingest import TrainingData, open_training_data
from pipeline.stages.offers import OF_A_TRAINING, await_room, spare_in_training
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.tracking import is_part, tracked_run
from pipeline.stages.training_words import root_cause, tell_warm_up
from pipeline.stages.worker_job import METRICS, REAL_STREAM, STREAM, Watch, WorkerJob, run_worker

CHECKPOINTS = "checkpoints"
"""Ray Train's own folder in the model's directory; removed when the model is published."""
LEASE = "lease"
"""Folder in the model's directory: of all trainings of a model, one at a time runs."""
logger = logging.getLogger(__name__)


class LocalTrainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]  # mypy does not see Ray's lazy import
    """TorchTrainer less the process that gives a placement group back after a driver's death.

    A Ray of this machine dies with its driver anyway, and without a dashboard that process fills the log with errors.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [callback for callback in callbacks if type(callback).__name__ != "PlacementGroupCleanerCallback"]


def train(config: RunConfig, store: Store, watch: Watch | None = None, parent_run: str | None = None) -> dict[str, Any]:
    """Train the classifier of a config, go on with an interrupted training of it, or find it finished.

    While another process trains the same model this one waits, then finds it finished or goes on in its place.

    Args:
        config: of the run; `train.data` chooses the image set of its recipe or the real twin.
        store: the storage root. The model goes to `models/<id>/`, its manifest last.
        watch: a search that follows it.
        parent_run: MLflow run of a sweep or study that this training is a part of; None without one.

    Returns:
        The model's manifest with `model_dir`, `existing` (nothing was to do) and `mlflow_run_id`; JSON-able.

    Raises:
        InputError: the config, the image set or the real data is wrong; no file of a model was written.
        WorkError: the training failed; it goes on from its last checkpoint when called again.
    """
    recipe = resolve_recipe(config)
    identity, identity_hash = model_identity(config, recipe)
    model_dir = model_directory(identity_hash)
    is_finished = partial(store.exists, f"{model_dir}/{MANIFEST}")
    is_known = is_finished()
    opened = [] if is_known else [open_checked(config, recipe, store)]
    if not is_known:
        tell_warm_up(config.train)

    def give_way(line: str) -> None:
        logger.warning(line)
        opened.clear()  # another one's training may take hours, and these may be all its images in memory

    parents = {} if config.train.data == "real" else {"generate": recipe.id}
    params = run_parameters(config, identity)
    key = None if watch is None else watch.lease_key
    turn = lease(store, f"{model_dir}/{LEASE}", until=lambda: is_known, key=key, say=give_way)
    tracked = tracked_run(config, store, "train", identity_hash[:ID_LENGTH], params, parents, parent_run=parent_run)
    with turn, tracked as run:
        existing = is_finished()  # maybe by another process meanwhile
        if not existing:
            data = opened.pop() if opened else open_checked(config, recipe, store)
            weights_sha256 = fit(config, store, model_dir, data, run, watch)
            seen = {} if watch is None else {"validation": watch.validation_id}
            publish(config, recipe, store, model_dir, data, {"identity": identity, **seen}, weights_sha256)
        drop_checkpoints(store, model_dir)
        manifest = read_manifest(store, model_dir, "run the same command again")
        log_data(run, store, manifest)
        for metrics in read_metrics(store, model_dir):  # whatever a lost server missed; points that are there stay
            points = {name: value for name, value in metrics.items() if name not in ("epoch", "ended")}
            run.log_metrics(points, int(metrics["epoch"]), metrics.get("ended"))
    return {**manifest, "model_dir": model_dir, "existing": existing, "mlflow_run_id": run.run_id}


def fit(
    config: RunConfig,
    store: Store,
    model_dir: str,
    data: TrainingData,
    run: RunHandle,
    watch: Watch | None = None,
) -> str:
    """Run the workers to the last epoch; the sha256 of the weights that rank 0 wrote.

    Raises:
        InputError: no node of the cluster has what a worker needs.
        WorkError: the workers cannot start or fail.
    """
    settings = config.train
    parts = ((STREAM, data), (REAL_STREAM, data.real))
    streamed = {name: part for name, part in parts if part is not None and part.arrays is None}
    quiet()
    needed = settings.num_workers * settings.num_cpus_per_worker + len(streamed)
    with ray_session(num_cpus=max(4, os.cpu_count() or 1, int(needed + 0.999))):
        job = WorkerJob(
            config=config,
            store=store,
            model_dir=model_dir,
            class_shares=data.class_shares(settings),
            num_images=data.num_images,
            shard_size=data.shard_size,
            arrays=None if data.arrays is None else ray.put(data.arrays),
            real_arrays=None if data.real is None or data.real.arrays is None else ray.put(data.real.arrays),
            run=run.handle(),
            validation=None if watch is None else ray.put(watch.validation),
        )
        use_gpu = settings.device == "cuda"
        per_worker = {"CPU": settings.num_cpus_per_worker, **({"GPU": 1} if use_gpu else {})}
        if cluster_address() is not None:
            least = settings.min_workers or settings.num_workers
            await_room(per_worker, least, OF_A_TRAINING, config.generate.stall_timeout_s)
        if not is_part() and (line := spare_in_training(per_worker, settings)):  # else other trainings take them
            logger.warning("train: %s", line)
        trainer = (LocalTrainer if cluster_address() is None else ray.train.torch.TorchTrainer)(
            run_worker,
            train_loop_config={"job": job},
            scaling_config=ray.train.ScalingConfig(
                num_workers=elastic_range(settings),
                use_gpu=use_gpu,
                resources_per_worker=per_worker,
            ),
            run_config=ray.train.RunConfig(
                name=CHECKPOINTS,
                storage_path=store.uri(model_dir),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures),
                callbacks=[] if watch is None else list(watch.callbacks),
                logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            ),
            datasets={name: part.stream(store, config) for name, part in streamed.items()},
        )
        interrupt = signal.getsignal(signal.SIGINT)
        try:
            outcome: dict[str, str | None] = trainer.fit().return_value
        except ray.train.TrainingFailedError as error:
            raise WorkError(f"training {model_dir} failed: {root_cause(error)}") from error
        except ray.exceptions.RayActorError as error:
            raise WorkError(
                f"training {model_dir} lost its controller ({str(error).splitlines()[0]}); "
                "run the same command again to go on from its last checkpoint"
            ) from error
        except SystemExit as error:  # what Ctrl-C becomes in Ray Train's own handler
            raise KeyboardInterrupt from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, interrupt)  # Ray Train leaves its own, for a controller that is gone
    if outcome["error"] is not None:
        raise WorkError(outcome["error"])
    assert outcome["weights_sha256"] is not None
    return outcome["weights_sha256"]


def elastic_range(settings: TrainConfig) -> int | tuple[int, int]:
    """How many workers Ray Train may run with."""
    return settings.num_workers if settings.min_workers is None else (settings.min_workers, settings.num_workers)


def publish(
    config: RunConfig,
    recipe: Recipe,
    store: Store,
    model_dir: str,
    data: TrainingData,
    about: dict[str, Any],
    weights_sha256: str,
) -> None:
    """Write config.json and, last, manifest.json; `about` holds the model's identity."""
    history = read_metrics(store, model_dir)
    seconds = sum(metrics["seconds"] for metrics in history)
    images = sum(metrics["images"] for metrics in history)
    names = {"class_names": recipe.classes.names, "wnids": recipe.classes.wnids}
    store.write_json(f"{model_dir}/{CONFIG}", {"train": config.train.model_dump(mode="json"), **names})
    manifest = {
        "model": model_dir.rpartition("/")[2],
        **about,
        "config": config.model_dump(mode="json"),
        "data": data.source,
        "num_images": data.num_images,
        "epochs": len(history),
        "images_seen": int(images),
        "loss": history[-1]["loss"],
        "accuracy": history[-1]["accuracy"],
        "images_per_s": images / seconds,
        "seconds": seconds,
        "files": {WEIGHTS: weights_sha256},
        "versions": installed_versions("torch", "torchvision", "ray"),
    }
    store.write_json(f"{model_dir}/{MANIFEST}", manifest)


def log_data(run: RunHandle, store: Store, manifest: dict[str, Any]) -> None:
    """Tell MLflow what the model was trained on, and what that took."""
    source, train = manifest["data"], manifest["config"]["train"]
    about = {"images": manifest["num_images"], **source}
    if "image_set" in source:
        where = store.uri(source["image_set"])
        run.log_dataset(source["image_set"], source["set_sha256"], where, about, "training")
    if "real" in source:
        run.log_dataset(source["real"], source.get("fingerprint", source["real"]), source["real"], about, "training")
    hours = manifest["seconds"] * train["num_workers"] / 3600
    run.set_tags({"synthclones.device": train["device"], "synthclones.worker_hours": f"{hours:.4f}"})


def drop_checkpoints(store: Store, model_dir: str) -> None:
    """Remove what only an unfinished training needs; it is twice the size of the model."""
    file_system, path = store.filesystem(f"{model_dir}/{CHECKPOINTS}")
    if file_system.get_file_info(path).type == fs.FileType.Directory:
        file_system.delete_dir(path)


def read_metrics(store: Store, model_dir: str) -> list[dict[str, float]]:
    """The lines of a model's metrics.jsonl: one per epoch, `epoch` counts from 1."""
    lines = store.read_bytes(f"{model_dir}/{METRICS}").decode().splitlines()
    return [json.loads(line) for line in lines]


def open_checked(config: RunConfig, recipe: Recipe, store: Store) -> TrainingData:
    """The training images of a config. Raises `InputError` when they, their number or this machine do not do."""
    data = open_training_data(config, recipe, store)
    check_machine(config)
    check_batches(config.train, data.num_images + (0 if data.real is None else data.real.num_images))
    return data


def check_machine(config: RunConfig) -> None:
    """Raises `InputError` when a training on this machine alone asks for GPUs that it does not have."""
    settings = config.train
    if settings.device != "cuda" or cluster_address() is not None:
        return
    import torch

    usable = torch.cuda.device_count()
    if usable < settings.num_workers:
        raise InputError(
            f"train.device is cuda with {settings.num_workers} workers but this machine has {usable} usable GPUs; "
            "lower train.num_workers, use --set train.device=cpu, or submit to a cluster"
        )
