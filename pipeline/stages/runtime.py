"""The only place that starts or joins Ray."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

# Both must be set before Ray is imported. Usage statistics would try to leave a closed network; the dedup of worker
# logs would hide a failure that many actors share.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import ray

from pipeline.core.errors import InputError


@contextmanager
def ray_session(num_cpus: int | None = None, object_store_gib: float | None = None) -> Iterator[None]:
    """Ray for one job: the cluster of RAY_ADDRESS (set by `ray job submit`), else one on this machine, shut down after.

    Args:
        num_cpus: CPUs a local Ray may plan with; default: those of the machine, at least 4, since the actors' CPU
            numbers are reservations and a 2-core laptop must be able to hold a pool and its driver.
        object_store_gib: shared memory a local Ray may fill; default: Ray's own, 30% of the machine's.

    Raises:
        InputError: RAY_ADDRESS names a cluster that does not answer.
    """
    if ray.is_initialized():  # a job called from another one, or from a test's session
        yield
        return
    logging.getLogger("ray.data").setLevel(logging.WARNING)  # a line per execution says nothing to a user
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address=address, log_to_driver=True)
        else:
            planned = num_cpus or max(4, os.cpu_count() or 1)
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
    try:
        yield
    finally:
        ray.shutdown()
