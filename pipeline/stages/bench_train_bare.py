"""The sides of a training benchmark without Ray: bare DDP with our loop, a plain torchvision script, bare decoding."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.core.config import RunConfig
from pipeline.core.image_batches import MemoryBatches
from pipeline.core.image_set import read_columns
from pipeline.core.machine import end_with_parent, usable_cpus
from pipeline.core.train_config import TrainConfig
from pipeline.core.training_images import COLUMNS, decode_rows, stored_side, synthetic_images
from pipeline.stages.bench_group import run_group
from pipeline.stages.bench_sides import Measured
from pipeline.stages.bench_train_set import BenchSet

if TYPE_CHECKING:
    from torch import Tensor

Epochs = list[tuple[float, float]]
"""(images over all processes, when it ended in seconds since 1970) of each epoch."""


@dataclass(frozen=True)
class OneBatch:
    """The same ready tensors in every step, as `pipeline.core.image_batches.ImageBatches`: data that costs nothing."""

    images: Tensor
    labels: Tensor
    steps_per_epoch: int

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ARG002 - of the protocol
        """As `ImageBatches.epoch`."""
        for _ in range(self.steps_per_epoch):
            yield self.images, self.labels


def run_bare_ddp(data: BenchSet) -> Measured:
    """Our loop on images in memory in processes of torch.distributed alone."""
    return _in_group(data, _our_loop, "memory")


def run_tensors(data: BenchSet) -> Measured:
    """The same with one batch that is there already."""
    return _in_group(data, _our_loop, "tensors")


def run_torchvision_script(data: BenchSet) -> Measured:
    """ImageFolder, torchvision's transforms, a DataLoader for each worker, DDP, cross-entropy."""
    return _in_group(data, _torchvision_loop, str(data.folder))


def run_bare_decode(data: BenchSet) -> Measured:
    """As many processes as there are CPUs read shards and decode them, and keep nothing."""
    count = usable_cpus()
    shards = data.shards
    began = time.perf_counter()
    with multiprocessing.get_context("forkserver").Pool(count, initializer=end_with_parent) as pool:
        pool.map(_warm, range(count), chunksize=1)
        started = time.perf_counter()
        images = sum(pool.starmap(_decode_shard, [(data, shard) for shard in shards], chunksize=1))
        seconds = time.perf_counter() - started
    return Measured(images / seconds, time.perf_counter() - began)


def timed_rate(epochs: Epochs) -> float:
    """Images per second from the end of the first epoch, which warms up, to the end of the last.

    What lies between the epochs counts.
    """
    return sum(images for images, _ in epochs[1:]) / (epochs[-1][1] - epochs[0][1])


def _warm(_: int) -> None:
    import PIL.JpegImagePlugin  # noqa: F401 - the first image would pay for it


def _decode_shard(data: BenchSet, shard: str) -> int:
    table = read_columns(data.store, shard, COLUMNS)
    _, labels = decode_rows(table, data.config.images_per_class, stored_side(data.config.train), shard)
    return len(labels)


Loop = Callable[[BenchSet, str, int, Any], Epochs]


def _in_group(data: BenchSet, loop: Loop, source: str) -> Measured:
    began = time.perf_counter()
    settings = data.config.train
    backend = "nccl" if settings.device == "cuda" else "gloo"
    epochs = run_group(settings.num_workers, backend, _run_loop, data, loop, source)
    return Measured(timed_rate(epochs), time.perf_counter() - began)


def _run_loop(rank: int, data: BenchSet, loop: Loop, source: str) -> Epochs:
    import torch

    torch.set_num_threads(data.config.train.torch_threads)
    cuda = data.config.train.device == "cuda"
    if cuda:
        torch.cuda.set_device(rank)
    return loop(data, source, rank, torch.device("cuda", rank) if cuda else torch.device("cpu"))


def _our_loop(data: BenchSet, source: str, rank: int, device: Any) -> Epochs:
    from torch.nn.parallel import DistributedDataParallel

    from pipeline.core.classifier import build_classifier
    from pipeline.core.training_loop import run_epochs
    from pipeline.core.training_state import ddp_options, start_training

    config, settings = data.config, data.config.train
    images, labels = synthetic_images(data.store, data.shards, config)
    batches: Any = MemoryBatches(images, labels, settings.seed, settings.batch_size, rank, settings.num_workers)
    if source == "tensors":
        first_images, first_labels = next(batches.epoch(0))
        batches = OneBatch(first_images, first_labels, batches.steps_per_epoch)
    epochs: Epochs = []
    network = build_classifier(settings, len(data.recipe.classes)).to(device)
    model = None
    if settings.num_workers > 1:  # as Ray Train: alone, the network is not wrapped
        with ddp_options() as options:
            model = DistributedDataParallel(network, [device] if device.type == "cuda" else None, **options)
    state = start_training(settings, network, model)
    run_epochs(settings, state, batches, device, 0, lambda _, done: epochs.append((done["images"], time.time())))
    return epochs


def _torchvision_loop(data: BenchSet, source: str, rank: int, device: Any) -> Epochs:
    import torch
    import torchvision
    from torch.nn.parallel import DistributedDataParallel
    from torchvision import transforms

    from pipeline.core.augment import IMAGENET_MEAN, IMAGENET_STD
    from pipeline.core.training_state import AUTOCAST

    settings = data.config.train
    chain = transforms.Compose(
        [
            transforms.RandomResizedCrop(settings.input_size, (settings.min_crop_scale, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    folder = torchvision.datasets.ImageFolder(source, chain)
    share = settings.batch_size // settings.num_workers
    sampler: Any = torch.utils.data.DistributedSampler(folder, drop_last=True)
    loader: Any = torch.utils.data.DataLoader(
        folder, share, sampler=sampler, drop_last=True, persistent_workers=True, **loader_options(settings)
    )
    network = torchvision.models.resnet50(num_classes=len(folder.classes)).to(device)
    model = DistributedDataParallel(network, [device] if device.type == "cuda" else None)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    criterion, dtype = torch.nn.CrossEntropyLoss(), AUTOCAST[settings.mixed_precision]
    epochs: Epochs = []
    for epoch in range(settings.epochs):
        sampler.set_epoch(epoch)
        images_seen, loss = 0, torch.zeros(())
        for images, labels in loader:
            images, labels = (tensor.to(device, non_blocking=True) for tensor in (images, labels))
            with torch.autocast(device.type, dtype, enabled=dtype is not None):
                loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images_seen += len(labels) * settings.num_workers
        assert np.isfinite(loss.item()), rank
        epochs.append((images_seen, time.time()))
    return epochs


def loader_options(settings: TrainConfig) -> dict[str, Any]:
    """How the script's DataLoader is set for speed: on a GPU all of a worker's cores but its own read ahead.

    On a CPU the steps need the cores, and one process for each worker keeps up.
    """
    if settings.device == "cpu":
        return {"num_workers": 1}
    return {"num_workers": max(1, usable_cpus() // settings.num_workers - 1), "pin_memory": True}


def with_train(config: RunConfig, **changes: Any) -> RunConfig:
    """A config with other training settings."""
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})
