"""Jobs on a real cluster by Ray's own command and by ours: stopped, side by side, and after the head died."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from tests.cluster_head import ClusterHead
from tests.conftest import Cli
from tests.tiny_sets import options, tiny_config

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

SHARDS = 16
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


def words(model: Path, root: Path, images_per_class: int = SHARDS) -> list[str]:
    changes = {**CHANGES, "images_per_class": images_per_class}
    return ["--", "python", "-m", "jobs.generate", *options(model, root, changes)]


def shards(model: Path, root: Path) -> set[int]:
    images = resolve_recipe(tiny_config(model, CHANGES)).images_dir
    return published_shards(Store.open(str(root)), images) if root.exists() else set()


def log_file(root: Path) -> Path:
    return root.with_suffix(".log")


def wait_for_a_shard(model: Path, root: Path) -> None:
    deadline = time.monotonic() + 600
    while not shards(model, root):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow  # tests/jobs/test_submit.py sends and follows one in each run
def test_a_stopped_job_is_gone_on_with_by_the_same_command(
    head: ClusterHead, cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    root, environment = tmp_path / "runs", dict(head.client_environment)
    count = 4 * SHARDS  # it must not end while `ray job stop` still starts
    command = ["--address", head.address, "--json", *words(tiny_model, root, count)]
    sent = cli("jobs.submit", "--no-wait", *command, env=environment, timeout_s=600).check_ok().json
    again = cli("jobs.submit", "--no-wait", *command, env=environment, timeout_s=600).check_ok()
    assert again.json["submission_id"] == sent["submission_id"] and "already under way" in again.stderr
    wait_for_a_shard(tiny_model, root)
    assert head.ray_job("stop", sent["submission_id"]).returncode == 0
    left = shards(tiny_model, root)
    assert 0 < len(left) < count
    resumed = cli("jobs.submit", *command, env=environment, timeout_s=900).check_ok()
    assert resumed.json["submission_id"] == f"{sent['submission_id']}-2"
    assert shards(tiny_model, root) == set(range(count))


def test_two_jobs_run_side_by_side_one_of_them_by_rays_own_command(
    head: ClusterHead, tiny_model: Path, tmp_path: Path
) -> None:
    ours = [sys.executable, "-m", "jobs.submit", "--address", head.address]
    rays = [sys.executable, str(Path(sys.executable).parent / "ray"), "job", "submit", "--working-dir", "."]
    rays += ["--entrypoint-num-cpus", "1", "--address", head.address]
    roots = {tmp_path / "one": ours, tmp_path / "two": rays}
    count = 2 * SHARDS  # neither must end while the other one still starts
    jobs = [head.start([*command, *words(tiny_model, root, count)], log_file(root)) for root, command in roots.items()]
    for root in roots:
        wait_for_a_shard(tiny_model, root)
    assert [job.poll() for job in jobs] == [None, None], "one ended before the other began"
    assert [job.wait(900) for job in jobs] == [0, 0], [log_file(root).read_text() for root in roots]
    assert [shards(tiny_model, root) for root in roots] == [set(range(count))] * 2
    assert [f"{count * 10} images in" in log_file(root).read_text() for root in roots] == [True, True]


@pytest.mark.slow
def test_a_job_goes_on_with_a_new_head(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    root, first = tmp_path / "runs", ClusterHead(4)
    try:
        command = [sys.executable, "-m", "jobs.submit", "--address", first.address, *words(tiny_model, root)]
        sent = first.start(command, log_file(root))
        wait_for_a_shard(tiny_model, root)
    finally:
        first.close()
    second = ClusterHead(4)  # it starts while the lost one's follower finds out
    try:
        assert sent.wait(300) == 1, log_file(root).read_text()
        last = log_file(root).read_text().strip().splitlines()[-1]
        assert last.startswith("error: the cluster at") and "no longer answers" in last
        assert "Traceback" not in log_file(root).read_text() and 0 < len(shards(tiny_model, root)) < SHARDS
        again = ["--address", second.address, *words(tiny_model, root)]
        cli("jobs.submit", *again, env=dict(second.client_environment), timeout_s=900).check_ok()
    finally:
        second.close()
    assert shards(tiny_model, root) == set(range(SHARDS))
