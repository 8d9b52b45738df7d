"""What Ray raises reaches the user as one line, on real Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
import ray

from pipeline.core.errors import InputError, WorkError
from pipeline.stages.runtime import START_TIMEOUT_S, ray_session

pytestmark = pytest.mark.usefixtures("ray_cluster")
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("kind", [InputError, WorkError])
def test_an_error_for_the_user_comes_as_it_was_raised_on_the_worker(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, ray_session():
        ray.get(ray.remote(num_cpus=0)(raises).remote(kind("the disk is full")))
    assert type(caught.value) is kind and str(caught.value) == "the disk is full"


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of one that ends in this moment."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_a_local_ray_listens_on_loopback_alone() -> None:
    """The session's services and workers; a server that a test started beside it listens there too."""
    ray.get(ray.remote(num_cpus=0)(lambda: None).remote())
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {process.pid: " ".join(words_of(process)[:2]) for process in ours}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in names]
    assert {"gcs_server", "raylet"} <= {names[c.pid].split()[0].rpartition("/")[2] for c in listening}
    assert {names[c.pid]: c.laddr for c in listening if c.laddr.ip not in LOOPBACK} == {}


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ray.exceptions.RayTaskError, match="in raises"), ray_session():
        ray.get(ray.remote(num_cpus=0)(raises).remote(KeyError("x")))


def test_work_that_ray_lost_for_good_is_one_line() -> None:
    def dies() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    says = r"^Ray lost .*WorkerCrashedError.*; what is published is kept, run the same command again"
    with pytest.raises(WorkError, match=says), ray_session():
        ray.get(ray.remote(num_cpus=0, max_retries=0)(dies).remote())


def test_a_cluster_with_another_python_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the check is at the connection, and this process has one."""
    started = {"ray_version": "2.1.0", "python_version": "3.9.1"}  # what a head of then would have written
    address = ray.get_runtime_context().gcs_address
    code = f"""
from unittest.mock import patch
from pipeline.stages.runtime import ray_session
with patch("ray._common.usage.usage_lib.get_cluster_metadata", lambda client: {started}):
    with ray_session():
        pass
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "RAY_ADDRESS": address}, capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("pipeline.core.errors.InputError: the cluster at RAY_ADDRESS=") and "Python: 3.9.1" in last


def test_a_machine_too_busy_for_ray_is_one_line() -> None:
    """Likewise; `ray.init` ends so when there is no raylet in time."""
    code = """
import os
from unittest.mock import patch
from pipeline.stages.runtime import ray_session
def init(**settings):
    raise Exception("The current node timed out during startup: " + os.environ["RAY_raylet_start_wait_time_s"])
with patch("ray.init", init):
    with ray_session():
        pass
"""
    ours = ("RAY_ADDRESS", "RAY_raylet_start_wait_time_s")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and last.startswith("pipeline.core.errors.WorkError: Ray did not start"), last
    assert f"startup: {START_TIMEOUT_S}" in done.stderr  # not Ray's 30 s


def test_sigterm_to_a_driver_is_one_line() -> None:
    """Ray's own handlers would print a stack, or end it without a word."""
    code = """
import time
import click
import ray
from pipeline.cli import run_job
from pipeline.stages.runtime import ray_session

@click.command()
def job():
    with ray_session():
        ray.get(ray.remote(num_cpus=0)(lambda: print("began", flush=True)).remote())
        print("waits", flush=True)
        time.sleep(100)

run_job(job)
"""
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes) as driver:
        while driver.stdout.readline() != "waits\n":
            assert driver.poll() is None, driver.stderr.read()
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert said.strip().splitlines()[-1].startswith("error: interrupted; what is done is kept"), said
    assert "SIGTERM" not in said and "Traceback" not in said


def test_ray_asks_for_its_node_as_long_as_that_says() -> None:
    code = """
import sys, time
from ray._private.services import get_node
began = time.monotonic()
try:
    get_node(sys.argv[1], "ab" * 28)
except RuntimeError:
    print(time.monotonic() - began)
"""
    environment = {**os.environ, "RAY_raylet_start_wait_time_s": "2"}
    command = [sys.executable, "-c", code, ray.get_runtime_context().gcs_address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert 2 <= float(done.stdout.split()[-1]) < 20, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["pipeline.stages.one_worker", "pipeline.stages.generate", "pipeline.stages.train"])
def test_ray_shows_every_line_of_every_worker(module: str) -> None:
    """Whichever module brings Ray in: Ray reads the setting when it is imported."""
    code = f"import {module}; from ray._private import ray_constants; print(ray_constants.RAY_DEDUP_LOGS)"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"
