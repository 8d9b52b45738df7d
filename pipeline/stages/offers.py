"""What the nodes of a cluster have for an actor or a worker, now and if its autoscaler may start more."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray._raylet import GcsClient  # type: ignore[attr-defined] # of C++, without types
from ray.autoscaler._private.util import format_readonly_node_type
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

from pipeline.core.config import GenerateConfig
from pipeline.core.errors import InputError
from pipeline.core.image_batches import check_batches
from pipeline.core.mixing import check_mixing
from pipeline.core.stall import StallClock
from pipeline.core.train_config import TrainConfig

OF_AN_ACTOR = "generate.num_gpus_per_actor, generate.num_cpus_per_actor"
OF_A_TRAINING = "train.num_cpus_per_worker, train.device=cpu"
"""Settings that ask for less; they stand in the line that says that nobody has what is asked for."""
POLL_S = 1.0
WARN_AFTER_S = 30.0
JOIN_PATIENCE_S = 30.0
SAY_BUSY_EVERY_S = 300.0
ANSWER_TIMEOUT_S = 40.0
"""For an autoscaler to look at a new request; it looks every few seconds."""


def check_offered(needs: Mapping[str, float], settings: str = OF_AN_ACTOR, waited_s: float = 0.0) -> None:
    """Raises `InputError` when no node has what one actor needs, and none that has will come.

    An autoscaler (v2) tells what it will start no node for, when it has looked at a waiting actor, seconds after that
    was asked for. Older ones (v1) with groups of their own tell nobody; then this raises nothing. A cluster without
    groups gets `JOIN_PATIENCE_S` for nodes that somebody else starts.

    Args:
        needs: amount by resource, e.g. `{"CPU": 1, "GPU": 1}`.
        settings: that ask for less, for the message.
        waited_s: since this was asked for.
    """
    wanted = _wanted(needs)
    if nodes_hold(wanted):
        return
    if _refused(wanted, _status()):
        no = "and its autoscaler has no group of nodes with them or no room for one more"
        mend = "add such a group or raise its limit (max_workers in cluster.yaml, maxReplicas in Kubernetes)"
    elif waited_s >= JOIN_PATIENCE_S and not _has_groups():
        no, mend = f"none joined within {waited_s:.0f} s, and it has no autoscaler that starts one", "add such a node"
    else:
        return
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
    raise InputError(
        f"no node of the cluster has {_named(wanted)} for an actor, {no} (the most on a node now: {_named(most)}); "
        f"{mend}, or ask for less: {settings}"
    )


def nodes_hold(needs: Mapping[str, float], taken: Mapping[str, Mapping[str, float]] | None = None) -> int:
    """How many times the nodes that are up hold this, whoever uses them now.

    Args:
        needs: amount by resource.
        taken: amounts by resource that are not to be counted, by the id of their node.
    """
    wanted, count = _wanted(needs), 0
    for node in ray.nodes():
        if node["Alive"]:
            there, less = node["Resources"], (taken or {}).get(node.get("NodeID"), {})
            fits = ((there.get(name, 0) - less.get(name, 0)) / amount for name, amount in wanted.items())
            count += int(min(fits, default=1))
    return count


def await_offer(needs: Mapping[str, float], settings: str) -> None:
    """Ask the cluster for one actor's needs, and return when a node has them or may be started for them.

    Raises:
        InputError: as `check_offered`.
    """
    wanted, asked_s, seen = _wanted(needs), time.monotonic(), None
    if nodes_hold(wanted):
        return
    # A task that waits alone: an autoscaler answers for it, and not for a part of a group.
    # And outside the placement group of a sweep's trial, if this is in one.
    with_them = ray.remote(num_cpus=wanted.get("CPU", 0), num_gpus=wanted.get("GPU", 0), scheduling_strategy="DEFAULT")(
        _nothing
    ).remote()
    try:
        while not nodes_hold(wanted) and time.monotonic() - asked_s < ANSWER_TIMEOUT_S:
            status = _status()
            if seen is None and _waiting(wanted, status):
                seen = status.cluster_resource_state.cluster_resource_state_version
            check_offered(wanted, settings, time.monotonic() - asked_s)
            if seen is not None and status.autoscaling_state.last_seen_cluster_resource_state_version >= seen:
                return
            time.sleep(POLL_S)
    finally:
        ray.cancel(with_them)


def await_room(needs: Mapping[str, float], count: int, settings: str, stall_timeout_s: float) -> None:
    """Wait until the cluster has room for a group that can only start as a whole; say what is waited for.

    Ray Train would wait for ever, without a word or with a traceback a minute. What other jobs have is waited for as
    long as they have it: no job takes anything from another. What the command of this very job has is never free.

    Args:
        needs: of one of the group.
        count: of the group.
        settings: that ask for less, for the message.
        stall_timeout_s: after so long without the nodes it is given up, unless other jobs have them.

    Raises:
        InputError: no node has what one of them needs, and none will; or all have too little beside this job's command.
        WorkError: the nodes have not come in time.
    """
    await_offer(needs, settings)
    wanted, own = _wanted(needs), _own_command()
    clock = StallClock(min(WARN_AFTER_S, stall_timeout_s), stall_timeout_s)
    asked_s, said_s = time.monotonic(), -math.inf

    def say_now_and_then(line: str) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAY_BUSY_EVERY_S:
            said_s = time.monotonic()
            print(f"train: {line}", flush=True)

    room = ray.util.placement_group([wanted] * count)
    try:
        while not room.wait(POLL_S):
            situation, waited_s = _situation(wanted, count), time.monotonic() - asked_s
            if nodes_hold(wanted, own) >= count:
                say_now_and_then(f"{situation}, in use by other jobs: waiting until they end")
                continue
            if nodes_hold(wanted) >= count:
                situation += _beside(own, settings)
                say_now_and_then(situation)
                if waited_s >= JOIN_PATIENCE_S and not _has_groups():
                    raise InputError(situation)
            if line := clock.look(waited_s, situation):
                print(f"train: {line}", flush=True)
    finally:
        ray.util.remove_placement_group(room)


def shortage(needs: Mapping[str, float], actors: int) -> str | None:
    """A line when the nodes that are there cannot hold all actors at once, else None."""
    there = ray.cluster_resources()
    lacking = [name for name, amount in needs.items() if amount and amount * actors > there.get(name, 0)]
    if not lacking:
        return None
    has = _named({name: there.get(name, 0) for name in lacking})
    fits = min(int(there.get(name, 0) // needs[name]) for name in lacking)
    wanted = _named({name: needs[name] * actors for name in lacking})
    return (
        f"{actors} actors need {wanted}, the nodes have {has} now: work begins on those; the rest waits for new nodes, "
        f"and if this cluster starts none, --set generate.num_actors={max(1, fits)} asks for what is there"
    )


def spare(needs: Mapping[str, float], settings: GenerateConfig, shards: int) -> str | None:
    """A line when the free GPUs hold more actors than the pool will ever have, else None.

    Args:
        needs: of one actor.
        settings: of the pool.
        shards: that are to be made.
    """
    fits, pool = min(_free(needs), shards), settings.largest_pool(shards)
    return _idle(f"generate.{settings.pool_bound}", pool, fits, fits) if fits > pool else None


def spare_in_training(needs: Mapping[str, float], settings: TrainConfig) -> str | None:
    """The same for the workers of a training: for the most that its batch can be shared by."""
    fits = _free(needs)
    for most in range(fits, settings.num_workers, -1):
        wider = settings.model_copy(update={"num_workers": most})
        with suppress(InputError):
            check_batches(wider, settings.batch_size)
            if settings.data == "mixed":
                check_mixing(wider, settings.batch_size, settings.batch_size)
            return _idle("train.num_workers", settings.num_workers, fits, most)
    return None


def _free(needs: Mapping[str, float]) -> int:
    """How many times the free GPUs hold this; 0 without a GPU, and in a trial's slot: the rest is of other trials."""
    wanted, free = _wanted(needs), ray.available_resources()
    if "GPU" not in wanted or ray.util.get_current_placement_group() is not None:
        return 0
    return min(nodes_hold(wanted), *(int(free.get(name, 0) / amount) for name, amount in wanted.items()))


def _idle(setting: str, has: int, fits: int, better: int) -> str:
    return (
        f"{setting}={has} leaves GPUs idle: those that are free now hold {fits}; stop it, and the same command with "
        f"--set {setting}={better} goes on with them"
    )


def _situation(wanted: Mapping[str, float], count: int) -> str:
    there = ray.cluster_resources()
    needed = _named({name: amount * count for name, amount in wanted.items()})
    has = _named({name: there.get(name, 0) for name in wanted})
    return f"{count} training workers (train.num_workers) need {needed} at a time, all nodes together have {has}"


def _own_command() -> dict[str, dict[str, float]]:
    """What Ray holds for the command of this job as long as it runs, by node id; empty for a job that nobody submitted.

    An actor of another job holds it, so only the table of jobs tells.
    """
    jobs = _control_service().get_all_job_info(
        job_or_submission_id=ray.get_runtime_context().get_job_id(), skip_is_running_tasks_field=True, timeout=10
    )
    sent = [job.job_info for job in jobs.values() if job.HasField("job_info")]
    return {i.driver_node_id: _wanted({"CPU": i.entrypoint_num_cpus, "GPU": i.entrypoint_num_gpus}) for i in sent}


def _beside(own: Mapping[str, Mapping[str, float]], settings: str) -> str:
    """The end of a line about a group that had room if the command of its job held nothing."""
    held = " and ".join(_named(amounts) for amounts in own.values())
    return (
        f", of which this job's own command holds {held} as long as it runs; send it with jobs.submit --num-cpus 0, "
        f"lower train.num_workers, or ask for less: {settings}"
    )


def _nothing() -> None:
    """Runs on a node that has what was asked for."""


def _control_service() -> Any:
    return GcsClient(ray.get_runtime_context().gcs_address)


def _status() -> Any:
    reply = GetClusterStatusReply()
    reply.ParseFromString(_control_service().get_cluster_status(timeout_s=10))
    return reply


def _has_groups() -> bool:
    """Whether an autoscaler may start nodes.

    The older one (v1) runs everywhere; without groups of its own it reports each node as one, by its id.
    """
    if not (text := _control_service().internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), timeout=10)):
        return True  # not that one, or not yet
    groups = json.loads(text).get("autoscaler_report", {}).get("active_nodes", {})
    ids = {format_readonly_node_type(node["NodeID"]) for node in ray.nodes()}
    return not groups or not ids.issuperset(groups)


def _waiting(wanted: Mapping[str, float], status: Any) -> int:
    """How many requests of this shape wait for a node."""
    pending = status.cluster_resource_state.pending_resource_requests
    return sum(found.count for found in pending if dict(found.request.resources_bundle) == wanted)


def _refused(wanted: Mapping[str, float], status: Any) -> bool:
    """Whether the autoscaler (v2) will start no node for any of them: where some get one, more may just be too many."""
    refused = status.autoscaling_state.infeasible_resource_requests
    count = sum(dict(request.resources_bundle) == wanted for request in refused)
    return count > 0 and count >= _waiting(wanted, status)


def _wanted(needs: Mapping[str, float]) -> dict[str, float]:
    return {name: float(amount) for name, amount in needs.items() if amount}


def _named(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
