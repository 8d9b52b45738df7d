"""Training beside its peers: what is compared with what."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.image_batches import check_batches
from pipeline.core.machine import usable_cpus
from pipeline.core.model_identity import at_default
from pipeline.core.train_config import TrainConfig
from pipeline.stages.bench_sides import Measured
from pipeline.stages.bench_train_bare import (
    run_bare_ddp,
    run_bare_decode,
    run_tensors,
    run_torchvision_script,
    timed_rate,
    with_train,
)
from pipeline.stages.bench_train_set import BenchSet, write_bench_set
from pipeline.stages.bench_turns import take_ratio, turns
from pipeline.stages.data_context import quiet
from pipeline.stages.image_streams import StreamBatches
from pipeline.stages.ingest import open_training_data
from pipeline.stages.runtime import ray_session
from pipeline.stages.train import read_metrics, train

RATIOS = {
    "ray_over_bare_ddp": ("ray_memory", "bare_ddp"),
    "data_over_tensors": ("bare_ddp", "tensors"),
    "stream_over_tensors": ("ray_stream", "tensors"),
    "loader_over_bare_decode": ("loader", "bare_decode"),
    "stream_over_torchvision_script": ("ray_stream", "torchvision_script"),
}
"""Ours over the peer's rate; 1 is level, more is better."""

OURS_ALONE = ("data", "filters", "extra_images", "sync_batch_norm", "logit_adjustment")
"""Settings of `train` that no peer follows."""
NOT_THE_SCRIPTS = ("augmentation", "ema_decay")
"""Those that the torchvision script does not follow, besides forwards in parts and a loss scale."""


def run_ray(data: BenchSet, ingest: str) -> Measured:
    """`jobs.train` as it is; between the epochs lie its metrics, checkpoints and Ray's barrier, which all count."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        store = Store.open(root)
        images = Path(data.store.uri(data.recipe.images_dir))
        (Path(root) / "images").mkdir()
        (Path(root) / data.recipe.images_dir).symlink_to(images)
        summary = train(with_train(data.config, ingest=ingest), store)
        history = read_metrics(store, summary["model_dir"])
    rate = timed_rate([(line["images"], line["ended"]) for line in history])
    return Measured(rate, time.perf_counter() - began, {"data_wait_s": sum(line["data_wait_s"] for line in history)})


def run_loader(data: BenchSet) -> Measured:
    """Ray Data as a training streams it, into one consumer that does nothing."""
    began = time.perf_counter()
    quiet()  # as a training is
    config = with_train(data.config, ingest="stream")
    opened = open_training_data(config, data.recipe, data.store)
    share, epochs = config.train.batch_size, []
    batches = StreamBatches(
        opened.stream(data.store, config).iterator(), opened.num_images // share, share, opened.shard_size, 0
    )
    for epoch in range(config.train.epochs):
        images = sum(len(labels) for _, labels in batches.epoch(epoch))
        epochs.append((float(images), time.time()))
    return Measured(timed_rate(epochs), time.perf_counter() - began)


SIDES: dict[str, Callable[[BenchSet], Measured]] = {
    "bare_ddp": run_bare_ddp,
    "tensors": run_tensors,
    "torchvision_script": run_torchvision_script,
    "bare_decode": run_bare_decode,
    "ray_memory": lambda data: run_ray(data, "memory"),
    "ray_stream": lambda data: run_ray(data, "stream"),
    "loader": run_loader,
}


def check_alike(settings: TrainConfig, wanted: Sequence[str]) -> None:
    """Raises `InputError` when nothing would be timed, or the sides of a wanted ratio would do unlike work."""
    if settings.epochs < 2:
        raise InputError("train.epochs is 1, and the first epoch is not counted; give e.g. --set train.epochs=3")
    ours = [name for name in OURS_ALONE if not at_default(settings, name)]
    if ours:
        raise InputError(
            f"train.{ours[0]} is followed by no peer of jobs.train, which would do other work; leave it out"
        )
    if "torchvision_script" not in {side for name in wanted for side in RATIOS[name]}:
        return
    theirs = [name for name in NOT_THE_SCRIPTS if not at_default(settings, name)]
    most = settings.max_batch_per_worker
    if most is not None and most < settings.batch_size // settings.num_workers:
        theirs.append("max_batch_per_worker")
    if settings.mixed_precision == "float16":
        theirs.append("mixed_precision")
    if theirs:
        raise InputError(
            f"train.{theirs[0]} is more than the torchvision script does; leave it out, or choose other ratios "
            "with --only"
        )


def compare_training(
    config: RunConfig, repeats: int, wanted: Sequence[str], report: Callable[[dict[str, Any]], object]
) -> dict[str, Any]:
    """Run every side that the wanted ratios need, in turn, `repeats` times; each second repeat in the other order.

    Args:
        config: of the run; every side trains on its whole prefix, or reads it, `train.epochs` times.
        repeats: of every side, >= 1.
        wanted: keys of `RATIOS`.
        report: told of every finished side.

    Returns:
        The median of each wanted ratio under its name, `spread` (lowest and highest), and what was compared; JSON-able.

    Raises:
        InputError: one epoch only, settings that a wanted peer does not follow, or an impossible batch.
    """
    settings = config.train
    check_alike(settings, wanted)
    config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"enabled": False})})
    needed = {side for name in wanted for side in RATIOS[name]}
    measured: dict[str, list[Measured]] = {side: [] for side in needed}
    cpus = usable_cpus()
    # The loader has the cores that its peer has; a training's workers and its stream need more reservations than a
    # small machine has cores.
    on_ray = {"ray_memory": max(4, cpus), "ray_stream": max(4, cpus), "loader": cpus}
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as root:
        data = write_bench_set(config, Path(root))
        check_batches(settings, len(data.recipe.classes) * config.images_per_class)
        order = [side for side in SIDES if side in needed]
        for repeat, side in turns(order, on_ray, repeats, ray_session):
            seeded = replace(data, config=with_train(config, seed=settings.seed + repeat))
            done = SIDES[side](seeded)
            measured[side].append(done)
            report({"bench": "train", "repeat": repeat, "side": side, **done.as_json()})
    ratios = {name: take_ratio(*(measured[side] for side in RATIOS[name])) for name in wanted}
    return {
        "bench": "train",
        "images": len(data.recipe.classes) * config.images_per_class,
        "workers": settings.num_workers,
        "cpus": cpus,
        "repeats": repeats,
        **{name: ratio.median for name, ratio in ratios.items()},
        "spread": {name: [ratio.lowest, ratio.highest] for name, ratio in ratios.items()},
    }
