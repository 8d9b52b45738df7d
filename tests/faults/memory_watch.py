"""The memory of every process of a cluster over time, by role, and whether one of them grows."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

KIB_PER_MIB = 1024
FLOOR_MIB = 16.0
"""Growth that is no leak yet: one more arena of the allocator, one more full buffer."""
ROLES = {
    r"/raylet ": "raylet",
    r"^ray::.*Pulse": "pulse",
    r"^ray::.*MapWorker": "actor",
    r"^ray::JobSupervisor": "job supervisor",
    r"^ray::RuntimeEnvAgent|runtime_env/agent/main.py": "runtime env agent",
    r"^ray::DashboardAgent|dashboard/agent.py": "dashboard agent",
    r"^ray::_StatsActor|^ray::_AutoscalingCoordinator|^ray::ActorLocation": "Ray Data's actors",
    r"^ray::": "other worker",
    r"/gcs_server": "gcs",
    r"dashboard/dashboard.py|ray-dashboard": "dashboard",
    r"log_monitor.py": "log monitor",
    r"autoscaler/.*monitor.py": "autoscaler",
    r"ray.util.client.server": "client server",
    r"ray[ _]start": "ray start",
    r"^\S*python\S* -m jobs\.submit": "follower",
    r"^\S*python\S* -m jobs\.": "driver",
    r"mlflow": "mlflow",
}
"""By the command line; the first one that is found in it counts."""


@dataclass
class Series:
    """One process: seconds since the start, and MiB at those times.

    Args:
        role: what it is.
        node: where it runs.
        pid: of it.
        pss_mib: all of its memory, a page that n processes share as 1/n.
        own_mib: the anonymous part of that: heaps and stacks. The rest is code of libraries, whose share changes when
            a neighbour comes or goes, and the object store, whose size is fixed.
    """

    role: str
    node: str
    pid: int
    seconds: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)
    own_mib: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Growth:
    """How a process's own memory went after its warm-up. `span_s` is 0 when it was not there for long enough."""

    role: str
    node: str
    pid: int
    span_s: float
    first_mib: float
    last_mib: float
    mib_per_hour: float
    allowed_mib_per_hour: float

    @property
    def is_leak(self) -> bool:
        return self.mib_per_hour > self.allowed_mib_per_hour


class MemoryWatch:
    """Samples processes into a CSV: seconds, node, role, pid, rss_mib, pss_mib, own_mib."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", newline="")  # noqa: SIM115 - closed with the watch
        self._rows = csv.writer(self._file)
        self._rows.writerow(["seconds", "node", "role", "pid", "rss_mib", "pss_mib", "own_mib"])
        self._series: dict[tuple[int, float], Series] = {}

    def sample(self, at_s: float, nodes: Mapping[str, Iterable[psutil.Process]]) -> None:
        """Read every process that is still there; `at_s` is since the start of the run."""
        for node, processes in nodes.items():
            for process in processes:
                try:
                    key = (process.pid, process.create_time())
                    role = role_of(process.cmdline())
                    sizes = memory_mib(process.pid)
                except (psutil.Error, OSError):
                    continue  # it has ended
                series = self._series.setdefault(key, Series(role, node, process.pid))
                if role != "other worker":  # a process waits under that name before it becomes what it is
                    series.role = role
                series.seconds.append(at_s)
                series.pss_mib.append(sizes["Pss"])
                series.own_mib.append(sizes["Pss_Anon"])
                figures = [f"{sizes[name]:.2f}" for name in ("Rss", "Pss", "Pss_Anon")]
                self._rows.writerow([f"{at_s:.1f}", node, series.role, process.pid, *figures])
        self._file.flush()

    @property
    def series(self) -> list[Series]:
        return list(self._series.values())

    def close(self) -> None:
        self._file.close()


def role_of(words: Sequence[str]) -> str:
    """What a process is, by its command line."""
    line = " ".join(words)
    return next((role for pattern, role in ROLES.items() if re.search(pattern, line)), "other")


def memory_mib(pid: int) -> dict[str, float]:
    """`Rss`, `Pss`, `Pss_Anon` and the kernel's other sums over a process's memory. Raises `OSError` after its end."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) / KIB_PER_MIB for name, rest in (line.split(":") for line in lines)}


def growth(series: Series, warm_up_s: float, least_s: float, bound_mib_per_hour: float) -> Growth:
    """The slope of a process's own memory: the median over all pairs of samples (Theil-Sen), which peaks do not move.

    Args:
        series: of the process.
        warm_up_s: of its life that does not count.
        least_s: of samples after that; with less there is no slope.
        bound_mib_per_hour: of the slope, or `FLOOR_MIB` over the time that was seen, whichever is more.
    """
    seconds, own = np.asarray(series.seconds), np.asarray(series.own_mib)
    kept = seconds >= seconds[0] + warm_up_s
    seconds, own = seconds[kept], own[kept]
    span_s = float(seconds[-1] - seconds[0]) if len(seconds) else 0.0
    if span_s < least_s or len(seconds) < 3:
        return Growth(series.role, series.node, series.pid, 0.0, 0.0, 0.0, 0.0, bound_mib_per_hour)
    first, second = np.triu_indices(len(seconds), 1)
    slope = float(np.median((own[second] - own[first]) / (seconds[second] - seconds[first]))) * 3600
    edge = max(1, len(own) // 10)
    return Growth(
        series.role,
        series.node,
        series.pid,
        span_s,
        float(np.median(own[:edge])),
        float(np.median(own[-edge:])),
        slope,
        max(bound_mib_per_hour, FLOOR_MIB * 3600 / span_s),
    )
