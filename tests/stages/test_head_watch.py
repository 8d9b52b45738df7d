"""A head that is gone is told in time; one that takes connections is left alone."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from pipeline.stages.head_watch import answers, answers_within
from tests.conftest import REPOSITORY, Cli
from tests.s3_server import free_ports

WATCHING = """
import sys, time
from pipeline.stages import head_watch
head_watch.PATIENCE_S, head_watch.POLL_S = 1.0, 0.2
with head_watch.head_watched(sys.argv[1]):
    print("began", flush=True)
    time.sleep(float(sys.argv[2]))
print("ended by itself", flush=True)
"""


def watching(address: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """A process that watches a head and works for so long."""
    command = [sys.executable, "-c", WATCHING, address, str(seconds)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)


def test_a_silent_head_ends_the_process_with_one_line() -> None:
    (port,) = free_ports(1)
    done = watching(f"127.0.0.1:{port}", 30)
    assert done.returncode == 1 and done.stdout == "began\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the head of the Ray cluster (127.0.0.1:{port}) has not answered for 1 s; ")


def test_a_head_that_answers_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        done = watching(f"127.0.0.1:{server.getsockname()[1]}", 2.5)
    assert (done.returncode, done.stdout, done.stderr) == (0, "began\nended by itself\n", "")


def test_a_head_may_take_a_while_to_start() -> None:
    (port,) = free_ports(1)
    assert not answers(f"127.0.0.1:{port}")
    start_s = time.monotonic()
    assert not answers_within(f"127.0.0.1:{port}", 1.5)
    assert 1.5 <= time.monotonic() - start_s < 10
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert answers_within(f"[::1]:{server.getsockname()[1]}", 0)


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.org"])
def test_a_name_that_no_host_can_have_does_not_answer(host: str) -> None:
    assert not answers(f"{host}:6379")


def test_a_job_on_a_cluster_that_is_not_there_says_so(tmp_root: str, tiny_model, cli: Cli) -> None:
    from pathlib import Path

    from tests.tiny_sets import options

    (port,) = free_ports(1)
    start_s = time.monotonic()
    done = cli("jobs.generate", *options(tiny_model, Path(tmp_root)), env={"RAY_ADDRESS": f"127.0.0.1:{port}"})
    done.check_error(2, f"RAY_ADDRESS='127.0.0.1:{port}'", "start one there, or unset it")
    assert time.monotonic() - start_s < 60
