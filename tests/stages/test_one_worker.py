"""Work that needs a GPU leaves the driver; where no node has one, the line names the setting to change."""

from __future__ import annotations

import pytest

from pipeline.core.errors import InputError
from pipeline.stages.one_worker import on_a_gpu_node

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_a_gpu_that_nobody_has_is_one_line_with_the_jobs_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.stages.pulse.POLL_S", 0.5)
    monkeypatch.setattr("pipeline.stages.offers.JOIN_PATIENCE_S", 1.0)
    says = r"no node of the cluster has 1 CPU, 1 GPU .* ask for less: evaluate\.device=cpu"
    with pytest.raises(InputError, match=says):
        on_a_gpu_node(dict, "evaluate.device", 60)
