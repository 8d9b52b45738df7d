"""A node whose agents take longer than a raylet waits for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.stages import local_node
from tests.conftest import REPOSITORY

SLOW_AGENTS = """
import pathlib, time
words = pathlib.Path("/proc/self/cmdline").read_text()
if "dashboard/agent.py" in words or "runtime_env/agent/main.py" in words:
    time.sleep(25)
"""
"""Of Python itself, at each start. A raylet of Ray 2.60 waits 15 s for each agent and then aborts."""
JOB = """
import ray
from pipeline.stages.runtime import ray_session
with ray_session():
    print("answer:", ray.get(ray.remote(num_cpus=0)(lambda: 6 * 7).remote()))
"""


def test_a_node_with_late_agents_takes_work(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_AGENTS)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "RAY_raylet_start_wait_time_s": "60"}
    done = subprocess.run([sys.executable, "-c", JOB], env=environment, capture_output=True, text=True, timeout=300)
    assert "answer: 42" in done.stdout, done.stdout + done.stderr


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("", 0))
        taken.listen()
        free.bind(("", 0))
        ports = [taken.getsockname()[1], free.getsockname()[1]]
        free.close()
        monkeypatch.setattr(local_node, "PORTS", ports)
        assert local_node._free_ports(1) == ports[1:]
