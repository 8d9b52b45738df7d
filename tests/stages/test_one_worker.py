"""Work that needs a GPU leaves the driver; where no node has one, the line names the setting to change."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import InputError, WorkError
from pipeline.stages.offers import OF_AN_ACTOR
from pipeline.stages.one_worker import Worker, ask_one_worker, on_a_gpu_node
from pipeline.stages.pulse import start_pulse
from tests.stages.test_pool_watch import is_gone

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_gpu_that_nobody_has_is_one_line_with_the_jobs_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.pool_watch.POLL_S", 0.5)
    monkeypatch.setattr("pipeline.stages.offers.JOIN_PATIENCE_S", 1.0)
    says = r"no node of the cluster has 1 CPU, 1 GPU .* ask for less: evaluate\.device=cpu"
    with pytest.raises(InputError, match=says):
        on_a_gpu_node(dict, "evaluate.device", 60)


def sleep(notes: Path, tell: Any) -> dict[str, Any]:
    (notes / str(os.getpid())).touch()
    time.sleep(600)
    return {}


def test_a_worker_that_is_given_up_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else it would keep its GPU until the driver ends."""

    def look(*_: object) -> None:
        if list(tmp_path.iterdir()):
            raise WorkError("enough")

    monkeypatch.setattr("pipeline.stages.pool_watch.POLL_S", 0.5)
    monkeypatch.setattr("pipeline.stages.pool_watch._Watch.look", look)
    worker = Worker("generate", {"CPU": 1, "GPU": 0}, OF_AN_ACTOR, stall_timeout_s=60)
    with pytest.raises(WorkError, match="enough"):
        ask_one_worker(sleep, worker, start_pulse(), tmp_path)
    assert is_gone(tmp_path)
