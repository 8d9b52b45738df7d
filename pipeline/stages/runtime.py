"""The only place that starts or joins Ray."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray
import ray.exceptions
from ray._private import ray_constants

from pipeline.core.cluster import cluster_address
from pipeline.core.errors import InputError, WorkError
from pipeline.core.interrupt import interrupt_on_sigterm
from pipeline.stages.head_watch import answers, answers_within, head_watched
from pipeline.stages.local_node import agents_may_be_late

JOIN_TIMEOUT_S = 30.0
"""How long a head may not take connections while it starts. Ray itself would try for more than 8 minutes."""

START_TIMEOUT_S = "120"
"""How long a local Ray may take to start. Its own 30 s are too short for two laptop cores that do other work."""


def belong_to(address: str | None) -> None:
    """Called first by a process of a cluster that drives a job's part of its own (a trial, a training beside others).

    Ray gives workers no RAY_ADDRESS, so such a process would take the machine that it happens to run on for all there
    is. `address` is what `cluster_address` says in the driver.
    """
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
        os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "1"


@contextmanager
def ray_session(num_cpus: int | None = None, object_store_gib: float | None = None) -> Iterator[None]:
    """Ray for one job: the cluster of RAY_ADDRESS (set by `ray job submit`), else one on this machine, shut down after.

    Args:
        num_cpus: CPUs a local Ray may plan with; default: those of the machine, at least 4, since the actors' CPU
            numbers are reservations and a 2-core laptop must be able to hold a pool and its driver.
        object_store_gib: shared memory a local Ray may fill; default: Ray's own, 30% of the machine's.

    Raises:
        InputError: RAY_ADDRESS names a cluster that does not answer, or one with another version of Ray or Python.
        WorkError: a local Ray does not start, or Ray lost a part of the work and cannot make it again. A head that is
            lost ends the process, see `pipeline.stages.head_watch`.
    """
    if ray.is_initialized():  # a job called from another one, or from a test's session
        with _losses_told():
            yield
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a line per execution says nothing to a user
    address = cluster_address()
    if address and re.fullmatch(r"[^/]+:\d+", address) and not answers_within(address, JOIN_TIMEOUT_S):
        raise InputError(f"no Ray cluster answers at RAY_ADDRESS={address!r}; start one there, or unset it")
    try:
        if address:
            with _on_loopback() if _is_on_loopback_alone(address) else nullcontext():
                ray.init(address=address, log_to_driver=True)
        else:
            planned = num_cpus or max(4, os.cpu_count() or 1)
            os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "2000")  # why: see cluster.yaml
            os.environ.setdefault("RAY_raylet_start_wait_time_s", START_TIMEOUT_S)
            # That a Ray on loopback asks for a token is nothing to warn of.
            logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
            with _on_loopback(), agents_may_be_late():
                ray.init(
                    address="local",
                    num_cpus=planned,
                    object_store_memory=None if object_store_gib is None else int(object_store_gib * 2**30),
                    include_dashboard=False,
                    log_to_driver=True,
                )
    except ConnectionError as error:
        raise InputError(
            f"no Ray cluster answers at RAY_ADDRESS={address!r} ({error}); start it, or unset it"
        ) from error
    except RuntimeError as error:
        if "ersion mismatch" not in str(error):
            raise
        ray.shutdown()  # the check comes after the connection
        raise InputError(
            f"the cluster at RAY_ADDRESS={address!r} has another Ray or Python than this process: "
            f"{_on_one_line(error)}; set all nodes and this machine up with one Python from one requirements.lock, or "
            "send the job to the cluster instead: python -m jobs.submit"
        ) from error
    except Exception as error:
        if "timed out during startup" not in str(error):  # Ray raises a bare Exception
            raise
        ray.shutdown()
        raise WorkError(
            "Ray did not start on this machine within its time; the machine is too busy or out of memory: end other "
            "work, or wait, then run the same command again"
        ) from error
    interrupt_on_sigterm()  # Ray has set handlers of its own
    with head_watched(ray.get_runtime_context().gcs_address):
        try:
            with _losses_told():
                yield
        finally:
            ray.shutdown()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A node that starts in it listens on 127.0.0.1, as on systems where Ray knows one machine alone.

    Elsewhere Ray takes a network card's address for its node, even in place of a given 127.0.0.1, and its control
    service, raylet and workers then take connections from anywhere.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _is_on_loopback_alone(address: str) -> bool:
    """Whether the head is one of `_on_loopback`: Ray looks for 127.0.0.1:port at the network card's address."""
    host, _, port = address.rpartition(":")
    return host == "127.0.0.1" and not answers(f"{ray.util.get_node_ip_address()}:{port}")


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _losses_told() -> Iterator[None]:
    """What Ray raises about itself becomes one line, an error that a task meant for the user stays the line it was.

    Any other exception of our own code on a worker is a bug and keeps its traceback.
    """
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (InputError, WorkError)):
            raise error.cause from None  # Ray's own message holds the worker's traceback
        raise
    except ray.exceptions.RayError as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise WorkError(
            f"Ray lost a part of the work for good ({type(error).__name__}: {reason}); what is published is kept, run "
            "the same command again to go on"
        ) from error
