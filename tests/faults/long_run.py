"""Hours of one generation on a real cluster whose nodes die, with the memory of every process on record.

    python -m tests.faults.long_run --minutes 65 --out FOLDER

sends `jobs.generate` with `jobs.submit` to a head with worker nodes. Every five minutes one node dies with all its
processes and a new one joins; the first node stays, so that one actor's memory is seen over the whole time. At the end
the job is stopped and judged: exit code 1 with a line for each thing that is wrong. FOLDER then holds memory.csv,
memory.png, summary.json and job.log.
"""

from __future__ import annotations

import json
import math
import os
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import psutil
from matplotlib import colormaps
from matplotlib.figure import Figure
from pyarrow import fs

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from tests.cluster_head import JOINED, ClusterHead
from tests.conftest import REPOSITORY
from tests.faults.memory_watch import Growth, MemoryWatch, Series, growth
from tests.faults.set_check import check_part, published_names, rows_of
from tests.faults.undisturbed import make_undisturbed
from tests.mlflow_servers import MlflowServer

CLASSES = 10
SAMPLE_S = 10.0
START_TIMEOUT_S = 600
AGAIN_SHARDS = 5
"""That are made once more without Ray, and must be equal to the byte."""
HEAD = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_task_events_max_num_task_in_gcs": "2000"}
"""As in cluster.yaml."""
LONGEST_PAUSE_S = 300.0
"""Between two published shards: a job that waits longer is stuck, not slow."""


class LongRun:
    """The cluster, the job and what is seen of them.

    Args:
        out: folder of the results.
        minutes: of generation, from the first published shard on.
        kill_every_s: between two losses of a node.
        workers: nodes of one CPU, an actor each.
        images_per_s: that the size of the set is taken from; the job must not be done before its time.
    """

    def __init__(self, out: Path, minutes: float, kill_every_s: float, workers: int, images_per_s: float) -> None:
        self.seconds, self.kill_every_s, self.workers = minutes * 60, kill_every_s, workers
        self.out, self.root = out, out / "root"
        self.sets = [
            f"images_per_class={math.ceil(images_per_s * self.seconds / CLASSES / 100) * 100}",
            f"generate.num_actors={workers}",
            "recipe.guidance_scale=1",
        ]
        self.kills_s: list[float] = []
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self) -> dict[str, Any]:
        """All of it; what is in summary.json. Raises `AssertionError` when the job does not start."""
        with ExitStack() as stack:
            mlflow = MlflowServer(self.out)
            mlflow.start()
            stack.callback(mlflow.kill)
            self.head = ClusterHead(0, HEAD)
            stack.callback(self.head.close)
            self.start_nodes()
            self.watch = MemoryWatch(self.out / "memory.csv")
            stack.callback(self.watch.close)
            self.mlflow = mlflow
            self.follower = self.submit()
            stack.callback(self.follower.kill)
            self.began_s = time.time()
            generated_s, ended_early = self.generate()
            log = (self.out / "job.log").read_text(errors="replace")
            self.stop(log)
        return self.judge(generated_s, ended_early, log)

    def add_node(self) -> None:
        self.nodes[f"node {len(self.kills_s) + len(self.nodes)}"] = self.head.add_node(cpus=1)

    def start_nodes(self) -> None:
        """One after the other: a job on a cluster without nodes and without an autoscaler is refused."""
        deadline = time.monotonic() + START_TIMEOUT_S
        for number in range(self.workers):
            self.add_node()
            while self.head.nodes_log.count(JOINED) <= number:
                assert time.monotonic() < deadline, self.head.nodes_log
                self.replace_ended()
                time.sleep(0.5)

    def replace_ended(self) -> None:
        """A node that did not start in its time, on a machine that is too busy for it, is tried again."""
        for name, node in list(self.nodes.items()):
            if node.poll() is not None:
                print(f"{time.strftime('%H:%M:%S')} {name} did not start in time or ended; once more", flush=True)
                self.nodes[name] = self.head.add_node(cpus=1)

    def submit(self) -> subprocess.Popen[bytes]:
        words = [word for setting in self.sets for word in ("--set", setting)]
        with open(self.out / "job.log", "wb") as log:
            return subprocess.Popen(
                [
                    sys.executable, "-m", "jobs.submit", "--address", self.head.address, "--num-cpus", "0", "--",
                    "python", "-m", "jobs.generate", "--preset", "fashion", "--root", self.root, *words,
                ],
                cwd=REPOSITORY,
                env={**os.environ, **self.head.client_environment, "MLFLOW_TRACKING_URI": self.mlflow.uri},
                stdout=log,
                stderr=log,
            )  # fmt: skip

    def generate(self) -> tuple[float, bool]:
        """Watch and kill until the time is over or the job ends; seconds since the first shard, and if it ended."""
        first_s: float | None = None
        next_sample_s = 0.0
        while True:
            now_s = time.time()
            if now_s >= next_sample_s:
                next_sample_s = now_s + SAMPLE_S
                self.replace_ended()
                self.watch.sample(now_s - self.began_s, self.processes())
            if first_s is None:
                assert now_s - self.began_s < START_TIMEOUT_S, (self.out / "job.log").read_text(errors="replace")
                first_s = now_s if published_names(fs.LocalFileSystem(), str(self.root)) else None
            since_s = 0.0 if first_s is None else now_s - first_s
            if self.follower.poll() is not None or since_s >= self.seconds:
                return since_s, self.follower.poll() is not None
            if since_s >= self.kill_every_s * (len(self.kills_s) + 1):
                self.lose_a_node()
            time.sleep(0.5)

    def lose_a_node(self) -> None:
        """The oldest but the first one dies, so each lives for a few losses."""
        name = list(self.nodes)[1]
        ClusterHead.kill_node(self.nodes.pop(name))
        self.kills_s.append(time.time() - self.began_s)
        self.add_node()
        shards = len(published_names(fs.LocalFileSystem(), str(self.root)))
        print(f"{time.strftime('%H:%M:%S')} {name} killed, another one joins; {shards} shards published", flush=True)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """By node."""
        roots = {**{name: node.pid for name, node in self.nodes.items()}, "mlflow": self.mlflow.process.pid}
        found = {name: family(pid) for name, pid in roots.items()}
        known = {process.pid for processes in found.values() for process in processes}
        found["head"] = [process for process in self.head.processes if process.pid not in known]
        found["client"] = family(self.follower.pid)
        return found

    def stop(self, log: str) -> None:
        """As a user stops a job."""
        if self.follower.poll() is None:
            job_id = next(line.split()[1] for line in log.splitlines() if line.startswith("sent: "))
            stopped = self.head.ray_job("stop", job_id)
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr
            self.follower.wait(120)

    def judge(self, generated_s: float, ended_early: bool, log: str) -> dict[str, Any]:
        """What was seen, and under `wrong` what may not be."""
        wrong = []
        if ended_early:
            wrong.append(f"the job ended after {generated_s:.0f} s of {self.seconds:.0f}: {log[-500:]!r}")
        files, root = fs.LocalFileSystem(), str(self.root)
        names = published_names(files, root)
        images, again = 0, []
        try:
            assert names, "no shard was published"
            images, again = self.check_images(files, root, names)
        except AssertionError as error:
            wrong.append(f"the set is wrong: {str(error)[:1000]}")
        at_s = sorted(path.stat().st_mtime for path in self.root.glob("images/*/shards/shard-*.parquet"))
        pause_s = max((b - a for a, b in pairwise(at_s)), default=0.0)
        if pause_s > LONGEST_PAUSE_S:
            wrong.append(f"no shard was published for {pause_s:.0f} s, more than {LONGEST_PAUSE_S:.0f}")
        return {
            "command": shlex.join([sys.executable, *sys.orig_argv[1:]]),
            "settings": self.sets,
            "generated_s": generated_s,
            "images": images,
            "images_per_s": images / max(generated_s, 1.0),
            "shards": len(names),
            "shards_made_again_and_equal": again,
            "longest_pause_s": pause_s,
            "kills_s": self.kills_s,
            "load_average": os.getloadavg(),
            "wrong": wrong,
        }

    def check_images(self, files: fs.FileSystem, root: str, names: Sequence[str]) -> tuple[int, list[int]]:
        """Images of the set, and the shards that were made again. Raises `AssertionError` when the set is wrong."""
        config = load_config("fashion", overrides=[*self.sets, "tracking.enabled=false"])
        shards = [int(name.removesuffix(".parquet").rpartition("-")[2]) for name in names]
        chosen = sorted(random.Random(0).sample(shards, min(AGAIN_SHARDS, len(shards))))
        make_undisturbed(config, Store.open(str(self.out / "undisturbed")), chosen)
        again = rows_of(files, str(self.out / "undisturbed"))
        return check_part(files, root, config.generate.shard_size, again), chosen


def family(pid: int) -> list[psutil.Process]:
    """A process and all that descend from it; none when it has ended."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def plot(series: Sequence[Series], kills_s: Sequence[float], path: Path) -> None:
    """Own memory of every process over time, coloured by role; a line for each loss of a node."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    roles = list(Counter(one.role for one in series if len(one.seconds) > 1))
    for number, role in enumerate(roles):
        colour = colormaps["tab20"](number % 20)
        for position, one in enumerate(one for one in series if one.role == role and len(one.seconds) > 1):
            minutes = [second / 60 for second in one.seconds]
            axes.plot(minutes, one.own_mib, color=colour, linewidth=1, label=None if position else role)
    for kill_s in kills_s:
        axes.axvline(kill_s / 60, color="grey", linewidth=0.5, linestyle="--")
    axes.set(xlabel="minutes (dashed: a node killed)", ylabel="own memory of a process, MiB", yscale="log")
    axes.legend(fontsize="small", ncols=2, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=120)


@click.command(help=__doc__)
@click.option("--minutes", type=click.FloatRange(min=1), default=65, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the results; a new one.")
@click.option("--kill-every-s", type=click.FloatRange(min=10), default=300, show_default=True)
@click.option("--workers", type=click.IntRange(min=2), default=3, show_default=True, help="Nodes of one CPU.")
@click.option("--images-per-s", type=float, default=45, show_default=True, help="More than this machine makes.")
@click.option("--bound-mib-per-hour", type=float, default=60, show_default=True, help="Growth of any process.")
@click.option("--warm-up-s", type=float, default=None, help="Default: 2 minutes, or a fifth of a shorter run.")
def main(
    minutes: float,
    out: Path,
    kill_every_s: float,
    workers: int,
    images_per_s: float,
    bound_mib_per_hour: float,
    warm_up_s: float | None,
) -> None:
    """Run, judge, write."""
    out = out.resolve()
    out.mkdir(parents=True)
    warm_up_s = min(120.0, minutes * 12) if warm_up_s is None else warm_up_s
    long_run = LongRun(out, minutes, kill_every_s, workers, images_per_s)
    summary = long_run.run()
    series = long_run.watch.series
    grown = [growth(one, warm_up_s, warm_up_s, bound_mib_per_hour) for one in series]
    judged = sorted((one for one in grown if one.span_s), key=lambda one: -one.mib_per_hour)
    summary["wrong"] += [leak_line(one) for one in judged if one.is_leak]
    summary |= {"bound_mib_per_hour": bound_mib_per_hour, "warm_up_s": warm_up_s}
    summary["processes"] = [asdict(one) for one in judged]
    (out / "summary.json").write_text(json.dumps(summary, indent=1))
    plot(series, summary["kills_s"], out / "memory.png")
    print("| role | node | minutes seen | MiB, first / last | MiB per hour |\n|---|---|---|---|---|")
    for one in judged:
        sizes = f"{one.first_mib:.0f} / {one.last_mib:.0f} | {one.mib_per_hour:+.1f}"
        print(f"| {one.role} | {one.node} | {one.span_s / 60:.0f} | {sizes} |")
    print(
        f"{summary['images']} images in {summary['generated_s'] / 60:.1f} minutes, {len(summary['kills_s'])} nodes "
        f"killed, longest pause {summary['longest_pause_s']:.0f} s; {out}"
    )
    if summary["wrong"]:
        raise click.ClickException("\n".join(summary["wrong"]))


def leak_line(one: Growth) -> str:
    return (
        f"{one.role} on {one.node} (pid {one.pid}) grows by {one.mib_per_hour:.0f} MiB an hour, more than "
        f"{one.allowed_mib_per_hour:.0f}: from {one.first_mib:.0f} to {one.last_mib:.0f} MiB in {one.span_s / 60:.0f} "
        "minutes"
    )


if __name__ == "__main__":
    main()
