"""SIGTERM in real processes: the line and the code of Ctrl+C, for the job itself and for nothing that it forks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from pipeline.core.interrupt import interrupt_on_sigterm
from tests.conftest import REPOSITORY

JOB = """
import signal, sys, time
import click
from pipeline.cli import run_job

@click.command()
def job():
    print("began", flush=True)
    time.sleep(60)

signal.signal(signal.SIGINT, getattr(signal, sys.argv.pop()))
run_job(job)
"""
FORKS = """
import os, signal, time
from pipeline.core.interrupt import interrupt_on_sigterm

interrupt_on_sigterm()
child = os.fork()
if child == 0:
    time.sleep(60)
time.sleep(0.3)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("ctrl_c", ["default_int_handler", "SIG_IGN"])  # a shell lets what it starts with & ignore it
def test_sigterm_ends_a_job_with_the_line_of_ctrl_c(ctrl_c: str) -> None:
    command = [sys.executable, "-c", JOB, ctrl_c]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None and job.stdout.readline() == "began\n"
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=30)
    assert job.returncode == 1
    assert said.strip() == "error: interrupted; what is done is kept, run the same command again to go on"


def test_a_forked_child_ends_by_the_signal() -> None:
    done = subprocess.run([sys.executable, "-c", FORKS], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{-signal.SIGTERM}\n", "")


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=interrupt_on_sigterm)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
