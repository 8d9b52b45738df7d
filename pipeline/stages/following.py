"""A job of a cluster, followed to its end: its log, over connections that break, and how it ended."""

from __future__ import annotations

import asyncio
import sys
import time

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.core.errors import WorkError
from pipeline.stages.head_watch import PATIENCE_S, answers
from pipeline.stages.submission import answered, endpoint

POLL_S = 5.0
PENDING_NOTE_S = 30.0
"""A job that waits for a node says so as often."""


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Print a job's log as it grows and return how the job ended.

    Raises:
        WorkError: the head has not answered for `PATIENCE_S`.
    """
    address = client.get_address()
    log = _Log(client, job_id)
    silent_since_s: float | None = None
    while True:
        try:
            asyncio.run(log.print_on())
            with answered(address):
                job = client.get_job_info(job_id)
            if job.status.is_terminal():
                return job
            silent_since_s = None
        except (ClientError, OSError, RuntimeError) as error:  # the connection broke: the job may go on without us
            silent_since_s = silent_since_s or time.monotonic()
            if time.monotonic() - silent_since_s >= PATIENCE_S:
                raise WorkError(
                    f"the cluster at {address} no longer answers; what is published is kept, send the job again to a "
                    "cluster that is up to go on"
                ) from error
        time.sleep(1)


class _Log:
    """A job's log on stdout, each part once over all connections."""

    def __init__(self, client: JobSubmissionClient, job_id: str) -> None:
        self._client, self._job_id = client, job_id
        self._printed = 0

    async def print_on(self) -> None:
        """Print what is new until the log ends. Raises `ConnectionError` when the head is gone, which a web socket
        alone would not notice.
        """
        stream = self._client.tail_job_logs(self._job_id)  # from its begin
        seen = 0
        while True:
            chunk = asyncio.ensure_future(anext(stream))
            await self._wait(chunk)
            try:
                text = chunk.result()
            except StopAsyncIteration:
                return
            new = text[max(0, self._printed - seen) :]
            seen += len(text)
            self._printed = max(self._printed, seen)
            sys.stdout.write(new)
            sys.stdout.flush()

    async def _wait(self, chunk: asyncio.Future[str]) -> None:
        """Until there is a next part; a job that has none since it waits for a node says so."""
        head = endpoint(self._client.get_address())
        noted_s = heard_s = time.monotonic()
        while not (await asyncio.wait({chunk}, timeout=POLL_S))[0]:
            now_s = time.monotonic()
            if answers(head):
                heard_s = now_s
            elif now_s - heard_s >= PATIENCE_S:
                chunk.cancel()
                raise ConnectionError(head)
            if self._printed == 0 and now_s - noted_s >= PENDING_NOTE_S:
                noted_s = now_s
                job = self._client.get_job_info(self._job_id)
                if job.status == JobStatus.PENDING:
                    print(f"waiting: {job.message}", file=sys.stderr, flush=True)
