"""What ends with the process that started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

SCRIPT = """
import multiprocessing, sys, time
from pipeline.core.machine import end_with_parent

def work():
    end_with_parent()
    print("at work", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_ends_with_the_one_that_started_it(method: str, ending: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, str(script), method]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "at work\n"
        parent.send_signal(ending)
        parent.communicate(timeout=120)  # ends when no process holds the pipe's other end any more
    assert parent.returncode == -ending
