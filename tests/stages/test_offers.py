from __future__ import annotations

import pytest

from pipeline.stages.offers import check_offered, shortage

pytestmark = pytest.mark.usefixtures("ray_cluster")  # of 4 planned CPUs


def test_a_pool_that_is_larger_than_the_nodes_is_said_with_what_fits() -> None:
    assert shortage({"CPU": 1, "GPU": 0}, 4) is None
    line = shortage({"CPU": 1.5, "GPU": 0}, 6)
    assert line and "6 actors need 9 CPU, the nodes have 4 CPU now" in line and "num_actors=2" in line
    assert "the nodes have 0 GPU now" in (shortage({"CPU": 1, "GPU": 1}, 2) or "")


def test_nobody_is_refused_by_a_cluster_whose_autoscaler_tells_nothing() -> None:
    check_offered({"CPU": 1, "GPU": 0})
    check_offered({"CPU": 1, "GPU": 8})
