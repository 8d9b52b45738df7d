"""Our training loop in bare processes of torch.distributed: what a run through Ray must come to."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from pipeline.core.config import RunConfig
from pipeline.core.training_images import real_images

History = list[dict[str, float]]


def train_in_processes(config: RunConfig, directory: Path) -> History:
    """The metrics of every epoch of a training on real images with `train.num_workers` processes, undisturbed."""
    context = multiprocessing.get_context("spawn")
    queue: Any = context.SimpleQueue()
    meeting = (directory / "meeting").as_uri()
    processes = [
        context.Process(target=_member, args=(rank, meeting, config, queue)) for rank in range(config.train.num_workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(processes)
    history: History = queue.get()
    return history


def _member(rank: int, meeting: str, config: RunConfig, queue: Any) -> None:
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from pipeline.core.classifier import build_classifier
    from pipeline.core.image_batches import MemoryBatches
    from pipeline.core.training_loop import run_epochs
    from pipeline.core.training_state import start_training

    settings = config.train
    torch.set_num_threads(settings.torch_threads)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=settings.num_workers)
    images, labels = real_images(config)
    batches = MemoryBatches(images, labels, settings.seed, settings.batch_size, rank, settings.num_workers)
    network = build_classifier(settings, 10)
    model = DistributedDataParallel(network, gradient_as_bucket_view=True, broadcast_buffers=False)
    history: History = []
    state = start_training(settings, network, model)
    run_epochs(settings, state, batches, torch.device("cpu"), 0, lambda _, metrics: history.append(metrics))
    if rank == 0:
        queue.put(history)
    dist.destroy_process_group()
