"""`python -m jobs.submit` on a real cluster with a token, and what a run there leaves of a planted secret: nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.core.artifact import Store
from pipeline.core.image_set import published_shards
from pipeline.core.recipe import resolve_recipe
from tests.cluster_head import ClusterHead
from tests.conftest import Cli
from tests.jobs_api import Jobs, served
from tests.tiny_sets import options, tiny_config, training_options

pytestmark = pytest.mark.usefixtures("nothing_else_to_send")
PLANTED = "planted-7f3c19d2e8"  # the nodes' credentials; no file of a run may hold it


@pytest.fixture(scope="module")
def head(isolated_environment: None) -> Iterator[ClusterHead]:
    started = ClusterHead(4, {"AWS_SECRET_ACCESS_KEY": PLANTED})
    yield started
    started.close()


def test_a_generation_is_sent_and_followed_and_its_secret_stays_where_it_was(
    head: ClusterHead, cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    words = options(tiny_model, root, {"tracking.enabled": "true", "generate.preflight": "never"})
    environment = {**head.client_environment, "AWS_SECRET_ACCESS_KEY": PLANTED, "MLFLOW_EXPERIMENT_NAME": "sent"}
    done = cli(
        "jobs.submit", "--address", head.address, "--secret", "AWS_SECRET_ACCESS_KEY", "--json",
        "--", "python", "-m", "jobs.generate", *words, env=dict(environment),
    ).check_ok()  # fmt: skip
    assert "40 images in" in done.stdout
    assert (done.json["status"], done.json["exit_code"]) == ("SUCCEEDED", 0)
    assert done.json["variables"] == ["HF_HUB_OFFLINE", "MLFLOW_EXPERIMENT_NAME"]
    recipe = resolve_recipe(tiny_config(tiny_model))
    assert published_shards(Store.open(str(root)), recipe.images_dir) == {0, 1, 2, 3}

    listed = head.ray_job("list")
    assert listed.returncode == 0 and done.json["submission_id"] in listed.stdout + listed.stderr, str(listed)
    left = [path for folder in (root, head.folder) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "mlflow.db" for path in left) and any(path.suffix == ".log" for path in left)
    assert [path for path in left if PLANTED.encode() in path.read_bytes()] == []
    assert PLANTED not in done.stdout + done.stderr + listed.stdout + listed.stderr


def test_a_jobs_exit_code_and_error_line_come_back_with_the_resume_command(head: ClusterHead, cli: Cli) -> None:
    command = ["--address", head.address, "--", "python", "-m", "jobs.generate", "--preset", "fashion"]
    failed = cli("jobs.submit", *command, env=dict(head.client_environment))
    assert failed.code == 2, str(failed)  # the default root is a directory that would go with the job
    assert "error: --root 'runs' would lie on one node of the cluster" in failed.stdout
    assert f"resume: python -m jobs.submit {' '.join(command)}" in failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr


def test_a_training_that_leaves_its_own_command_no_cpu_ends_and_says_what_holds_it(
    head: ClusterHead, cli: Cli, tiny_model: Path, tmp_path: Path
) -> None:
    as_many_as_cpus = ["--set", "train.data=real", "--set", "train.num_workers=4"]
    words = [*training_options(tmp_path / "runs", tiny_model), *as_many_as_cpus]
    command = ["--address", head.address, "--", "python", "-m", "jobs.train", *words]
    ended = cli("jobs.submit", *command, env=dict(head.client_environment))
    assert ended.code == 2, str(ended)
    held = "all nodes together have 4 CPU, of which this job's own command holds 1 CPU as long as it runs; send it with"
    assert f"{held} jobs.submit --num-cpus 0" in ended.stdout and "other jobs" not in ended.stdout


def test_without_the_token_it_is_one_line(head: ClusterHead, cli: Cli) -> None:
    command = ["--address", head.address, "--", "python", "-m", "jobs.generate", "--preset", "fashion"]
    refused = cli("jobs.submit", *command, env=dict.fromkeys(head.client_environment))
    refused.check_error(2, "asks for a token", "RAY_AUTH_MODE=token")


def test_the_dashboard_listens_on_loopback_alone(head: ClusterHead) -> None:
    port = int(head.address.rpartition(":")[2])
    ours = {process.pid for process in head.processes}
    listening = {c.laddr.ip for c in psutil.net_connections("inet") if c.pid in ours and c.laddr.port == port}
    assert listening == {"127.0.0.1"}


def test_a_dry_run_says_what_would_go(cli: Cli) -> None:
    shown = cli(
        "jobs.submit", "--dry-run", "--json", "--env", "LANG", "--", "python", "-m", "jobs.demo",
        env={"LANG": "C.UTF-8", "AWS_SECRET_ACCESS_KEY": PLANTED, "AWS_REGION": "here"},
    ).check_ok()  # fmt: skip
    assert shown.json["variables"] == ["AWS_REGION", "HF_HUB_OFFLINE", "LANG"] and PLANTED not in json.dumps(shown.json)
    assert 0 < shown.json["mib"] < 64
    assert shown.json["command"] == "python -m jobs.demo"


def test_a_password_in_the_address_is_in_no_output(cli: Cli) -> None:
    words = ["--json", "--", "python", "-m", "jobs.demo"]
    with served(Jobs((200, b'{"job_id": "demo-1", "submission_id": "demo-1"}'))) as address:
        hushed = address.replace("http://", f"http://me:{PLANTED}@")
        sent = cli("jobs.submit", "--no-wait", "--address", hushed, *words).check_ok()
        dry = cli("jobs.submit", "--dry-run", *words, env={"RAY_API_SERVER_ADDRESS": hushed}).check_ok()
    shown = address.replace("http://", "http://***@")
    assert f"sent: demo-1 at {shown}" in sent.stderr and f"--address '{shown}'" in sent.stdout
    assert sent.json["address"] == dry.json["address"] == shown
    assert PLANTED not in sent.stdout + sent.stderr + dry.stdout + dry.stderr
