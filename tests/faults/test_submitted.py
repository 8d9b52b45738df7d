"""Jobs on a real cluster by Ray's own command and by ours: stopped, side by side, and after the head died."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from tests.cluster_head import ClusterHead
from tests.conftest import REPOSITORY, Cli
from tests.tiny_sets import options, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SHARDS = 20
CHANGES: dict[str, object] = {
    "recipe.num_inference_steps": 30,
    "images_per_class": SHARDS,
    "generate.preflight": "never",
}


@pytest.fixture(scope="module")
def head(isolated_environment: None) -> Iterator[ClusterHead]:
    started = ClusterHead(4)
    yield started
    started.close()


def words(model: Path, root: Path) -> list[str]:
    return ["--", "python", "-m", "jobs.generate", *options(model, root, CHANGES)]


def shards(model: Path, root: Path) -> set[int]:
    images = resolve_recipe(tiny_config(model, CHANGES)).images_dir
    return published_shards(Store.open(str(root)), images) if root.exists() else set()


def wait_for_a_shard(model: Path, root: Path) -> None:
    deadline = time.monotonic() + 600
    while not shards(model, root):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_rays_own_command_sends_a_job_too(head: ClusterHead, tiny_model: Path, tmp_path: Path) -> None:
    sent = head.ray_job(
        "submit",
        "--working-dir",
        ".",
        "--entrypoint-num-cpus",
        "1",
        *words(tiny_model, tmp_path / "runs"),
        timeout_s=900,
    )
    assert sent.returncode == 0 and f"{SHARDS * 10} images in" in sent.stdout, sent.stdout + sent.stderr
    assert shards(tiny_model, tmp_path / "runs") == set(range(SHARDS))


def test_a_stopped_job_is_gone_on_with_by_the_same_command(
    head: ClusterHead, cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    root, environment = tmp_path / "runs", dict(head.client_environment)
    command = ["--address", head.address, "--json", *words(tiny_model, root)]
    sent = cli("jobs.submit", "--no-wait", *command, env=environment, timeout_s=600).check_ok().json
    wait_for_a_shard(tiny_model, root)
    again = cli("jobs.submit", "--no-wait", *command, env=environment, timeout_s=600).check_ok()
    assert again.json["submission_id"] == sent["submission_id"] and "already under way" in again.stderr
    assert head.ray_job("stop", sent["submission_id"]).returncode == 0
    left = shards(tiny_model, root)
    assert 0 < len(left) < SHARDS
    resumed = cli("jobs.submit", *command, env=environment, timeout_s=900).check_ok()
    assert resumed.json["submission_id"] == f"{sent['submission_id']}-2"
    assert shards(tiny_model, root) == set(range(SHARDS))


def test_two_jobs_run_side_by_side(head: ClusterHead, tiny_model: Path, tmp_path: Path) -> None:
    roots = [tmp_path / "one", tmp_path / "two"]
    jobs = [
        subprocess.Popen(
            [sys.executable, "-m", "jobs.submit", "--address", head.address, *words(tiny_model, root)],
            cwd=REPOSITORY,
            env={**os.environ, **head.client_environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for root in roots
    ]
    for root in roots:
        wait_for_a_shard(tiny_model, root)
    assert [job.poll() for job in jobs] == [None, None], "one ended before the other began"
    assert [job.wait(900) for job in jobs] == [0, 0]
    assert [shards(tiny_model, root) for root in roots] == [set(range(SHARDS))] * 2


def test_a_job_goes_on_with_a_new_head(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    root, first = tmp_path / "runs", ClusterHead(4)
    log = tmp_path / "log"
    try:
        with open(log, "wb") as file:
            sent = subprocess.Popen(
                [sys.executable, "-m", "jobs.submit", "--address", first.address, *words(tiny_model, root)],
                cwd=REPOSITORY,
                env={**os.environ, **first.client_environment},
                stdout=file,
                stderr=file,
            )
        wait_for_a_shard(tiny_model, root)
    finally:
        first.close()
    assert sent.wait(300) == 1, log.read_text()
    last = log.read_text().strip().splitlines()[-1]
    assert (
        last.startswith("error: the cluster at") and "no longer answers" in last and "Traceback" not in log.read_text()
    )
    assert 0 < len(shards(tiny_model, root)) < SHARDS
    second = ClusterHead(4)
    try:
        command = ["--address", second.address, *words(tiny_model, root)]
        cli("jobs.submit", *command, env=dict(second.client_environment), timeout_s=900).check_ok()
    finally:
        second.close()
    assert shards(tiny_model, root) == set(range(SHARDS))
