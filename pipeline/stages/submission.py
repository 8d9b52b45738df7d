"""A command sent to a cluster through Ray's jobs API."""

from __future__ import annotations

import getpass
import io
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import requests
from packaging.version import InvalidVersion
from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE, get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import _dir_travel, _get_excludes
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.core.errors import InputError, WorkError
from pipeline.core.outbox import one_line
from pipeline.core.submission import attempt_of, shown_address
from pipeline.stages.head_watch import answers_within

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
REQUEST_TIMEOUT_S = (5.0, 60.0)
"""For a connection, and for each silence after it."""
UPLOAD_TIMEOUT_S = (60.0, 600.0)
"""Of a package: for a piece of 16 KiB to go, and for the answer, before which slow lines still empty their buffers."""

_STATUS = re.compile(
    r"(?:Request failed with status code|Version check returned) (?P<code>\d+)[:.](?P<text>.*)", re.DOTALL
)


def package_sizes(folder: Path) -> dict[str, int]:
    """Bytes that Ray would pack, by entry of the folder: Ray's own walk, so what it ignores is left out."""
    sizes: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            entry = path.relative_to(folder).parts[0]
            sizes[entry] = sizes.get(entry, 0) + path.stat().st_size

    excludes = [_get_excludes(folder, get_runtime_env_default_excludes())]
    heeded = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    _dir_travel(folder, excludes, add, include_gitignore=heeded, logger=logging.getLogger(__name__))
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


class _Client(JobSubmissionClient):
    """Ray's client, which would wait for ever for a dashboard that takes connections and never answers."""

    def _do_request(
        self, method: str, endpoint: str, *, data: bytes | None = None, **arguments: Any
    ) -> requests.Response:
        # As a file, the body goes in pieces; as bytes it would be given to the socket at once, all within the limit.
        body: Any = None if data is None else io.BytesIO(data)
        arguments.setdefault("timeout", REQUEST_TIMEOUT_S if data is None else UPLOAD_TIMEOUT_S)
        return super()._do_request(method, endpoint, data=body, **arguments)


def connect(address: str) -> JobSubmissionClient:
    """The jobs API at an http(s) address, of a cluster with this machine's version of Ray.

    Raises:
        InputError: nothing answers there, it asks for a token that is not given, or it runs another Ray.
    """
    shown = shown_address(address)
    if not answers_within(endpoint(address), 5.0):
        raise InputError(
            f"no cluster answers at {shown}; forward its dashboard with `ray dashboard cluster.yaml` or "
            "`kubectl port-forward`, or give --address"
        )
    for name in ("ray._private.runtime_env", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a line for each .gitignore that was heeded
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray's client prefers the variables, RAY_ADDRESS too
    try:
        with answered(address):
            client = _Client(address)
            version = client._server_ray_version  # which it asked for when it was made
    except (WorkError, LookupError, TypeError, InvalidVersion) as error:  # what another server's answer ends in
        raise InputError(
            f"what answers at {shown} is no dashboard of Ray ({one_line(error)}); give the cluster's with --address"
        ) from error
    if version != ray.__version__:
        raise InputError(
            f"the cluster at {shown} runs Ray {version} and this machine {ray.__version__}; set both up from one "
            "requirements.lock"
        )
    return client


def submit_or_follow(
    client: JobSubmissionClient, base: str, submit: Callable[[str], str]
) -> tuple[str, JobDetails | None]:
    """The id of the run of a submission that is under way, with its details, else of a new one, with None.

    Args:
        client: of the cluster.
        base: the submission's id. Its later runs are `<base>-2` and so on: Ray takes no id twice.
        submit: sends the job under an id.
    """
    tried: set[str] = set()
    while True:
        with answered(client.get_address()):
            attempts = {}
            for job in client.list_jobs():
                if number := attempt_of(base, job.submission_id):
                    attempts[number] = job
            running = [number for number, job in attempts.items() if not job.status.is_terminal()]
            if running:
                job = attempts[max(running)]
                return str(job.submission_id), job
            number = max(attempts, default=0) + 1
            job_id = base if number == 1 else f"{base}-{number}"
            try:
                return submit(job_id), None
            except RuntimeError as error:  # somebody else sent it since it was listed: list again
                if "already exists" not in str(error) or job_id in tried:
                    raise
                tried.add(job_id)


def sender() -> dict[str, str]:
    """Metadata of a job: who sent it, as USER@HOST, for the next one who sends the same command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return {"sent_by": f"{user}@{socket.gethostname()}"}


def sent_when_and_by(job: JobDetails) -> str:
    """Who sent a job, and when, for people."""
    who = (job.metadata or {}).get("sent_by", "somebody without a name")
    when = datetime.fromtimestamp((job.start_time or 0) / 1000, timezone.utc)
    return f"sent by {who} at {when:%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def answered(address: str) -> Iterator[None]:
    """What the jobs API raises becomes one line."""
    shown = shown_address(address)
    try:
        yield
    except AuthenticationError as error:
        raise InputError(
            f"the cluster at {shown} asks for a token that was not given or is wrong; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
        ) from error
    except (requests.RequestException, ConnectionError) as error:
        raise WorkError(
            f"the cluster at {shown} does not answer as it should ({type(error).__name__}); try again"
        ) from error
    except WorkError:
        raise
    except RuntimeError as error:  # what Ray's client makes of every HTTP status that is no success
        found = _STATUS.match(str(error))
        if not found:
            raise
        lines = found["text"].strip().rstrip(".").splitlines() or ["no reason given"]
        mend = "what stands before it takes no package of this size" if found["code"] == "413" else "see its log"
        raise WorkError(
            f"the cluster at {shown} answered with HTTP {found['code']} ({lines[-1][:200]}); {mend}, then try again"
        ) from error


def endpoint(address: str) -> str:
    """HOST:PORT of an http(s) address. Raises `InputError` when it is none."""
    with suppress(ValueError):  # a bracket that is not closed, a port that is no number, a name like `a..b`
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.hostname.encode("idna"):
            return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    raise InputError(
        f"--address {shown_address(address)!r} is not http(s)://HOST:PORT, the address of the cluster's dashboard"
    )
