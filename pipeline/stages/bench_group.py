"""Processes of torch.distributed that this command starts itself, for the sides of a benchmark without Ray."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from pipeline.core.errors import WorkError
from pipeline.core.machine import end_with_parent

Answer = TypeVar("Answer")
GONE_TIMEOUT_S = 5.0


def run_group(count: int, backend: str, work: Callable[..., Answer], *args: Any) -> Answer:
    """`work(rank, *args)` in processes of one group; what it returned on rank 0.

    Args:
        count: of the processes.
        backend: of torch.distributed, e.g. `gloo`.
        work: at the top of a module, since it is pickled, as `args` are.
        *args: of `work`.

    Raises:
        WorkError: one of them failed, or was killed; the others are ended.
    """
    with tempfile.TemporaryDirectory(prefix="synthclones-bench-") as directory:
        context = multiprocessing.get_context("spawn")  # daemons of a forkserver may not have DataLoader's children
        receiver, sender = context.Pipe(duplex=False)
        meeting = (Path(directory) / "meeting").as_uri()
        processes = [
            context.Process(target=_member, args=(rank, count, backend, meeting, sender, work, args))
            for rank in range(count)
        ]
        for process in processes:
            process.start()
        try:
            answer: Answer = _answer(receiver, processes)
        except BaseException:
            for process in processes:
                process.terminate()
            raise
        finally:
            for process in processes:
                process.join()
    return answer


def _answer(receiver: Connection, processes: Sequence[BaseProcess]) -> Any:
    """What rank 0 sends. Raises `WorkError` when a process ends otherwise than well before."""
    running = list(processes)
    while True:
        ended = wait([receiver, *(process.sentinel for process in running)])
        if receiver in ended:
            return receiver.recv()
        gone = [process for process in running if process.sentinel in ended]
        for process in gone:
            process.join(GONE_TIMEOUT_S)  # its end is seen an instant before its exit code is
        if any(process.exitcode != 0 for process in gone):  # None: somebody else was told it, and nobody will be again
            raise WorkError("a process of torch.distributed failed; its error stands above, unless it was killed")
        running = [process for process in running if process not in gone]


def _member(
    rank: int, count: int, backend: str, meeting: str, sender: Connection, work: Callable[..., Any], args: Any
) -> None:
    end_with_parent()
    import torch.distributed as dist

    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=count)
    answer = work(rank, *args)
    if rank == 0:
        sender.send(answer)
    dist.destroy_process_group()
