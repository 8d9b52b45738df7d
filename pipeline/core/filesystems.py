"""The pyarrow file system of a storage root: opened once per process, and with patience for an object store."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar
from urllib.parse import urlsplit

from pyarrow import fs
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from pipeline.core.errors import OutageError

T = TypeVar("T")
logger = logging.getLogger(__name__)

OUTAGE_PATIENCE_S = 300.0
"""How long a server may not answer before a job ends. A shard that waits to be published has cost GPU minutes."""
_FINAL = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|NO_SUCH_BUCKET|HTTP status 40[0134]"
    r"|Status\((PERMISSION_DENIED|UNAUTHENTICATED)"
)
"""Answers of S3 and of Google's store that the next try would get again."""
_TRANSIENT = re.compile(r"REQUEST_TIMEOUT|RequestTimeout")
"""S3 says with status 400 that an upload paused for too long."""

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
MAX_ATTEMPTS = 4
"""Of one request; a gone server is given up after about 4 s. AWS's standard strategy tries again after time-outs,
throttling and 5xx answers, and never after an answer that will not change (403, 404)."""
GCS_RETRY_S = 5.0
"""How long Google's client tries one request again by itself; left alone it does for 15 minutes."""


@lru_cache(maxsize=16)
def open_filesystem(root: str) -> tuple[fs.FileSystem, str]:
    """The file system of a storage root and the root's path inside it.

    S3 takes everything but the bucket from the environment, as AWS's own tools do: `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and `AWS_ENDPOINT_URL` for other servers than Amazon's. Google's store takes
    what pyarrow reads from the URI; a `retry_limit_seconds` there counts instead of `GCS_RETRY_S`.

    Args:
        root: an absolute local path, or a URI that pyarrow opens.

    Raises:
        OSError, ValueError, pyarrow.ArrowException: pyarrow cannot open it.
        ValueError: an S3 URI with a query; settings there would end up in logs and manifests.
    """
    if "://" not in root:
        return fs.LocalFileSystem(), root
    parts = urlsplit(root)
    if parts.scheme != "s3":
        if parts.scheme == "gs" and "retry_limit_seconds=" not in parts.query:
            options = [parts.query] if parts.query else []
            root = parts._replace(query="&".join([*options, f"retry_limit_seconds={GCS_RETRY_S}"])).geturl()
        file_system, path = fs.FileSystem.from_uri(root)
        return file_system, path
    if parts.query or "@" in parts.netloc:
        raise ValueError("settings of S3 belong into the environment (AWS_ENDPOINT_URL, AWS_REGION, …)")
    if not parts.netloc:
        raise ValueError("no bucket is named")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint is None and region is None:
        region = fs.resolve_s3_region(parts.netloc)
    # Without `allow_delayed_open`, which would save two of a small file's three requests: with it pyarrow publishes an
    # empty object when the first request fails and the server is back for the next.
    s3 = fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
    )
    return s3, f"{parts.netloc}{parts.path}"


def is_final(error: OSError) -> bool:
    """Whether an object store's error is an answer that will not change: no access, no bucket."""
    text = str(error)
    return bool(_FINAL.search(text)) and not _TRANSIENT.search(text)


def outages_waited_out(action: Callable[[], T], patience_s: float | None = None) -> T:
    """The action's value, tried again while it raises `OutageError`, for `patience_s` (`OUTAGE_PATIENCE_S`) seconds.

    The waits grow from 1 s to 30 s and are random, so that a thousand workers do not come back in the same moment.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(OutageError),
        wait=wait_random_exponential(multiplier=1, min=1, max=30),
        stop=stop_after_delay(OUTAGE_PATIENCE_S if patience_s is None else patience_s),
        before_sleep=_say,
        reraise=True,
    )
    return retrying(action)


def _say(state: RetryCallState) -> None:
    assert state.outcome is not None
    logger.warning("%s (try %d, trying again)", state.outcome.exception(), state.attempt_number)
