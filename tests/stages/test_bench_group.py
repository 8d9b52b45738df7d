"""Processes of torch.distributed that a benchmark starts itself; one of them fails or is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.core.errors import WorkError
from pipeline.stages import bench_group
from pipeline.stages.bench_group import run_group


def _sum(rank: int, addend: int) -> int:
    import torch
    import torch.distributed as dist

    value = torch.tensor(rank + addend)
    dist.all_reduce(value)
    return int(value)


def _killed(rank: int) -> int:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
    return rank


def _fails(rank: int) -> int:
    if rank == 0:
        raise RuntimeError("no images")
    time.sleep(600)
    return rank


def test_all_work_together_and_rank_0_answers() -> None:
    assert run_group(2, "gloo", _sum, 10) == 21


def test_one_that_is_killed_ends_the_group() -> None:
    with pytest.raises(WorkError, match="unless it was killed"):
        run_group(2, "gloo", _killed)


def test_one_whose_exit_code_somebody_else_took_ends_the_group() -> None:
    """Python then has none for ever; waiting on for it took a core until rank 0 was done."""
    receiver, _sender = multiprocessing.Pipe(duplex=False)
    sentinel, end = multiprocessing.Pipe(duplex=False)
    end.close()
    gone: Any = SimpleNamespace(sentinel=sentinel.fileno(), exitcode=None, join=lambda _timeout_s: None)
    with pytest.raises(WorkError, match="unless it was killed"):
        bench_group._answer(receiver, [gone])


def test_one_that_fails_says_why_and_ends_the_group(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkError, match="its error stands above"):
        run_group(2, "gloo", _fails)
    assert "no images" in capfd.readouterr().err
