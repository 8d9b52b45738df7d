"""A command sent to a cluster through Ray's jobs API, and followed to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import requests
from aiohttp import ClientError
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.core.errors import InputError, WorkError
from pipeline.core.submission import attempt_of
from pipeline.stages.head_watch import PATIENCE_S, answers, answers_within

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
POLL_S = 5.0
PENDING_NOTE_S = 30.0
"""A job that waits for a node says so as often."""


def package_sizes(folder: Path) -> dict[str, int]:
    """Bytes that Ray would pack, by entry of the folder: Ray's own walk, so `.gitignore` and `.rayignore` count."""
    sizes: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            entry = path.relative_to(folder).parts[0]
            sizes[entry] = sizes.get(entry, 0) + path.stat().st_size

    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    _dir_travel(folder, excludes, add, include_gitignore=True, logger=logging.getLogger(__name__))
    return sizes


def check_size(sizes: Mapping[str, int], limit_mib: float) -> None:
    """Raises `InputError` with the biggest entries when a package would be larger."""
    total_mib = sum(sizes.values()) / 2**20
    if total_mib > limit_mib:
        biggest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
        named = ", ".join(f"{entry} {size / 2**20:.1f} MiB" for entry, size in biggest)
        raise InputError(
            f"the working directory holds {total_mib:.1f} MiB to send, more than {limit_mib:g} MiB: {named}; name in "
            ".rayignore what a job does not need, or raise --max-mib (Ray itself takes 512)"
        )


def connect(address: str) -> JobSubmissionClient:
    """The jobs API at an http(s) address, of a cluster with this machine's version of Ray.

    Raises:
        InputError: nothing answers there, it asks for a token that is not given, or it runs another Ray.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--address {address!r} is not http(s)://HOST:PORT, the address of the cluster's dashboard")
    if not answers_within(_endpoint(address), 5.0):
        raise InputError(
            f"no cluster answers at {address}; forward its dashboard with `ray dashboard cluster.yaml` or "
            "`kubectl port-forward`, or give --address"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's client prefers the variables, RAY_ADDRESS too
    with _answered(address):
        client = JobSubmissionClient(address)
        version = client._server_ray_version  # which it asked for when it was made
    if version != ray.__version__:
        raise InputError(
            f"the cluster at {address} runs Ray {version} and this machine {ray.__version__}; set both up from one "
            "requirements.lock"
        )
    return client


def submit_or_follow(client: JobSubmissionClient, base: str, submit: Callable[[str], str]) -> tuple[str, bool]:
    """The id of the run of a submission that is under way, else of a new one; and whether it is new.

    Args:
        client: of the cluster.
        base: the submission's id. Its later runs are `<base>-2` and so on: Ray takes no id twice.
        submit: sends the job under an id.
    """
    address = client.get_address()
    with _answered(address):
        attempts = {}
        for job in client.list_jobs():
            if number := attempt_of(base, job.submission_id):
                attempts[number] = job
        running = [number for number, job in attempts.items() if not job.status.is_terminal()]
        if running:
            return str(attempts[max(running)].submission_id), False
        number = max(attempts, default=0) + 1
        return submit(base if number == 1 else f"{base}-{number}"), True


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Print a job's log as it grows and return how the job ended.

    Raises:
        WorkError: the head has not answered for `PATIENCE_S`.
    """
    address = client.get_address()
    printed = 0
    heard_s = time.monotonic()
    while True:
        try:
            printed = asyncio.run(_print_log(client, job_id, printed))
            with _answered(address):
                job = client.get_job_info(job_id)
            if job.status.is_terminal():
                return job
            heard_s = time.monotonic()
        except (ClientError, OSError, RuntimeError) as error:  # the connection broke: the job may go on without us
            if time.monotonic() - heard_s >= PATIENCE_S:
                raise WorkError(
                    f"the cluster at {address} no longer answers; what is published is kept, send the job again to a "
                    "cluster that is up to go on"
                ) from error
        time.sleep(1)


async def _print_log(client: JobSubmissionClient, job_id: str, printed: int) -> int:
    """Print what lies behind the first `printed` characters of a log until it ends; how long it is now.

    Raises `ConnectionError` when the head is gone, which a web socket alone would not notice.
    """
    endpoint = _endpoint(client.get_address())
    stream = client.tail_job_logs(job_id)
    seen = 0
    noted_s = heard_s = time.monotonic()
    while True:
        chunk = asyncio.ensure_future(anext(stream))
        while not (await asyncio.wait({chunk}, timeout=POLL_S))[0]:
            now_s = time.monotonic()
            if answers(endpoint):
                heard_s = now_s
            elif now_s - heard_s >= PATIENCE_S:
                chunk.cancel()
                raise ConnectionError(endpoint)
            if seen == 0 and now_s - noted_s >= PENDING_NOTE_S:
                noted_s = now_s
                job = client.get_job_info(job_id)
                if job.status == JobStatus.PENDING:
                    print(f"waiting: {job.message}", file=sys.stderr, flush=True)
        try:
            text = chunk.result()
        except StopAsyncIteration:
            return max(seen, printed)
        before, seen = seen, seen + len(text)
        sys.stdout.write(text[max(0, printed - before) :])
        sys.stdout.flush()


@contextmanager
def _answered(address: str) -> Iterator[None]:
    """What the jobs API raises becomes one line."""
    try:
        yield
    except AuthenticationError as error:
        raise InputError(
            f"the cluster at {address} asks for a token that was not given or is wrong; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        ) from error
    except (requests.RequestException, ConnectionError) as error:
        raise WorkError(
            f"the cluster at {address} does not answer any more ({type(error).__name__}); try again"
        ) from error


def _endpoint(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
