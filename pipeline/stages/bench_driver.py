"""What a driver costs while it works: its CPU time and memory, sampled beside the number of shards that are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import psutil

HEAD = ("gcs_server", "raylet")
"""Ray's own processes on the driver's machine."""


@dataclass(frozen=True)
class Sample:
    """One look at this process.

    Args:
        at_s: seconds since 1970.
        done: shards that are published.
        cpu_s: CPU seconds of the driver so far, all its threads.
        head_cpu_s: the same of Ray's own processes on this machine.
        private_mb: memory of the driver that it shares with nobody (objects of Ray's store are not in it).
    """

    at_s: float
    done: int
    cpu_s: float
    head_cpu_s: float
    private_mb: float


class DriverSampler:
    """Samples this process on a thread of its own, from `__enter__` to `__exit__`; its own cost is in the samples.

    Args:
        count_done: how many shards are published.
        interval_s: between samples.
    """

    def __init__(self, count_done: Callable[[], int], interval_s: float) -> None:
        self.samples: list[Sample] = []
        self._count_done = count_done
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._process = psutil.Process()
        self._head: list[psutil.Process] = []
        self._head_cpu_s = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> DriverSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.samples.append(self._look())

    def _look(self) -> Sample:
        if not self._head:
            self._head = [child for child in self._process.children() if child.name() in HEAD]
        memory = self._process.memory_info()
        if all(process.is_running() for process in self._head):  # what they had when Ray was shut down
            self._head_cpu_s = sum(_cpu_s(process) for process in self._head)
        private_mb = (memory.rss - memory.shared) / 1e6
        return Sample(time.time(), self._count_done(), _cpu_s(self._process), self._head_cpu_s, private_mb)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def between(samples: Sequence[Sample], first_done: int, last_done: int) -> tuple[Sample, Sample]:
    """The first sample with `first_done` shards or more, and the first with `last_done` or more.

    Raises `ValueError` when there are no two such samples: the run was too short for its interval.
    """
    start = next((sample for sample in samples if sample.done >= first_done), None)
    stop = next((sample for sample in samples if sample.done >= last_done), None)
    if start is None or stop is None or stop.at_s <= start.at_s:
        raise ValueError(f"no two of {len(samples)} samples between {first_done} and {last_done} shards")
    return start, stop
