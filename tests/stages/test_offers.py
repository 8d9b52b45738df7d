from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.core.generated.gcs_pb2 import JobTableData

from pipeline.core.config import GenerateConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.train_config import TrainConfig
from pipeline.stages import offers
from pipeline.stages.offers import await_room, check_offered, nodes_hold, shortage, spare, spare_in_training
from tests.conftest import without_forwarded

pytestmark = pytest.mark.usefixtures("ray_cluster")  # of 4 planned CPUs


def test_a_pool_that_is_larger_than_the_nodes_is_said_with_what_fits() -> None:
    assert shortage({"CPU": 1, "GPU": 0}, 4) is None
    line = shortage({"CPU": 1.5, "GPU": 0}, 6)
    assert line and "6 actors need 9 CPU, the nodes have 4 CPU now" in line and "num_actors=2" in line
    assert "the nodes have 0 GPU now" in (shortage({"CPU": 1, "GPU": 1}, 2) or "")


@pytest.mark.parametrize(
    ("bounds", "shards", "says"),
    [
        ({"num_actors": 1}, 99, "num_actors=1 leaves GPUs idle: those that are free now hold 3; stop it"),
        ({"num_actors": 1, "max_actors": 2}, 99, "--set generate.max_actors=3"),
        ({"num_actors": 3}, 99, None),
        ({"num_actors": 1}, 1, None),
    ],
)
def test_gpus_that_a_pool_leaves_idle_are_said(
    monkeypatch: pytest.MonkeyPatch, bounds: dict[str, int], shards: int, says: str | None
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8, "GPU": 2}}] * 2
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 15.0, "GPU": 3.0})
    line = spare({"CPU": 1, "GPU": 1}, GenerateConfig(**bounds), shards)
    assert says in line if says else line is None


@pytest.mark.parametrize(
    ("changes", "better"),
    [
        ({"batch_size": 60}, 6),
        ({"batch_size": 64}, 4),  # five and six workers have no equal shares
        ({"batch_size": 60, "min_workers": 1}, 6),
        ({"batch_size": 64, "min_workers": 1}, None),  # nor has the third of an elastic range
        ({"batch_size": 6}, 3),  # a batch norm needs two images
        ({"batch_size": 60, "data": "mixed", "real_share": 0.1}, 6),
        ({"batch_size": 80, "data": "mixed", "real_share": 0.1}, 4),
        ({"batch_size": 65, "num_workers": 5}, None),
    ],
)
def test_gpus_that_a_training_leaves_idle_are_said(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], better: int | None
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 8, "GPU": 3}}] * 2)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 15.0, "GPU": 6.0})
    line = spare_in_training({"CPU": 1, "GPU": 1}, TrainConfig(**{"num_workers": 2, **changes}))
    assert spare_in_training({"CPU": 1}, TrainConfig(num_workers=1)) is None
    if better is None:
        assert line is None
    else:
        assert line and f"hold 6; stop it, and the same command with --set train.num_workers={better} goes" in line


def test_a_pool_without_gpus_is_not_told_of_idle_ones() -> None:
    assert spare({"CPU": 1, "GPU": 0}, GenerateConfig(num_actors=1), 99) is None


def test_nobody_is_refused_by_a_cluster_whose_autoscaler_tells_nothing() -> None:
    check_offered({"CPU": 1, "GPU": 0})
    check_offered({"CPU": 1, "GPU": 8})


def test_nodes_hold_as_often_as_each_holds_whole() -> None:
    assert [nodes_hold({"CPU": cpus, "GPU": 0}) for cpus in (1, 3, 5)] == [4, 1, 0]
    assert nodes_hold({"CPU": 1, "GPU": 1}) == 0


@pytest.mark.parametrize(("waiting", "refused", "is_refused"), [(5, 2, False), (5, 5, True), (0, 0, False)])
def test_only_a_group_with_no_room_for_any_refuses(
    monkeypatch: pytest.MonkeyPatch, waiting: int, refused: int, is_refused: bool
) -> None:
    """Five actors on a group of three nodes that are still to come: two are refused, none of the five is lost."""
    status, wanted = GetClusterStatusReply(), {"CPU": 1.0, "GPU": 1.0}
    asked = status.cluster_resource_state.pending_resource_requests.add(count=waiting)
    asked.request.resources_bundle.update(wanted)
    for _ in range(refused):
        status.autoscaling_state.infeasible_resource_requests.add().resources_bundle.update(wanted)
    monkeypatch.setattr(offers, "_status", lambda: status)
    if is_refused:
        with pytest.raises(InputError, match=r"no node of the cluster has 1 CPU, 1 GPU"):
            check_offered(wanted)
    else:
        check_offered(wanted)


class NoRoom:
    """A placement group that never gets what it asked for."""

    def wait(self, _seconds: float) -> bool:
        return False


@pytest.fixture
def beside_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node of 2 CPUs, of which one is held by the command of the job that waits for two workers of one."""
    nodes = [{"Alive": True, "NodeID": "head", "Resources": {"CPU": 2.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray.util, "placement_group", lambda _: NoRoom())
    monkeypatch.setattr(ray.util, "remove_placement_group", lambda _: None)
    job = JobTableData()
    job.job_info.driver_node_id, job.job_info.entrypoint_num_cpus = "head", 1.0
    service = SimpleNamespace(get_all_job_info=lambda **_: {"01000000": job})
    monkeypatch.setattr(offers, "_control_service", lambda: service)


@pytest.mark.parametrize(("has_groups", "ends"), [(False, InputError), (True, WorkError)])
def test_a_group_that_only_its_own_command_leaves_no_room_says_so_at_once_and_ends(
    beside_its_command: None,
    has_groups: bool,
    ends: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without an autoscaler no node comes; with one, it ends as any group for whose nodes it has waited in vain."""
    monkeypatch.setattr(offers, "JOIN_PATIENCE_S", 0.0)
    monkeypatch.setattr(offers, "_has_groups", lambda: has_groups)
    words = "of which this job's own command holds 1 CPU as long as it runs; send it with jobs.submit --num-cpus 0, "
    with pytest.raises(ends, match=f"{words}lower train.num_workers, or ask for less: nothing"):
        await_room({"CPU": 1}, 2, "nothing", stall_timeout_s=0.2)
    lines = without_forwarded(capsys.readouterr().out).splitlines()
    assert words in lines[0]


def test_a_group_with_room_beside_its_own_command_waits_for_other_jobs(
    beside_its_command: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr(NoRoom, "wait", lambda *_: next(looks))
    await_room({"CPU": 1}, 1, "nothing", stall_timeout_s=0.0)
    (line,) = without_forwarded(capsys.readouterr().out).splitlines()
    assert line.endswith("in use by other jobs: waiting until they end")


def test_there_is_room_at_once_where_the_nodes_are_free() -> None:
    await_room({"CPU": 1}, 3, "nothing", 5)


def test_what_other_jobs_have_is_waited_for_beyond_the_patience_for_nodes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.stages.offers.POLL_S", 0.2)
    theirs = ray.util.placement_group([{"CPU": 1}] * 3)
    assert theirs.wait(60)
    ends = threading.Timer(4, ray.util.remove_placement_group, [theirs])
    ends.start()
    await_room({"CPU": 1}, 3, "nothing", stall_timeout_s=1)
    assert ends.finished.is_set()
    (line,) = without_forwarded(capsys.readouterr().out).splitlines()
    assert line.endswith(
        "need 3 CPU at a time, all nodes together have 4 CPU, in use by other jobs: waiting until they end"
    )
