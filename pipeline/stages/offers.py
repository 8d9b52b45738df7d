"""What the nodes of a cluster have for an actor, now and if its autoscaler may start more."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined] # of C++, without types
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply  # type: ignore[attr-defined]

from pipeline.core.errors import InputError


def check_offered(needs: Mapping[str, float]) -> None:
    """Raises `InputError` when no node has what one actor needs and the autoscaler has refused to start one that does.

    It is told only when it has looked at a waiting actor, seconds after that was asked for. Older autoscalers (v1) tell
    nobody; then this raises nothing.

    Args:
        needs: amount by resource, e.g. `{"CPU": 1, "GPU": 1}`.
    """
    wanted = {name: amount for name, amount in needs.items() if amount}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    if wanted not in refused_requests():
        return
    most = {name: max((node.get(name, 0) for node in nodes), default=0) for name in wanted}
    raise InputError(
        f"no node of the cluster has {_named(wanted)} for an actor, and its autoscaler has no group of nodes with them "
        f"or no room for one more (the most on a node now: {_named(most)}); add such a group or raise its limit "
        "(max_workers in cluster.yaml, maxReplicas in Kubernetes), or ask for less: generate.num_gpus_per_actor, "
        "generate.num_cpus_per_actor"
    )


def refused_requests() -> list[dict[str, float]]:
    """What is waited for and the autoscaler (v2) will start no node for, by its own account."""
    reply = GetClusterStatusReply()
    reply.ParseFromString(GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status(timeout_s=10))
    refused = reply.autoscaling_state.infeasible_resource_requests
    return [dict(request.resources_bundle) for request in refused]


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


def _named(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())
