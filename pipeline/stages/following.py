"""A job of a cluster, followed to its end: its log, over connections that break, and how it ended."""

from __future__ import annotations

import asyncio
import sys
import time

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.core.errors import WorkError
from pipeline.core.submission import shown_address
from pipeline.stages.head_watch import PATIENCE_S, answers
from pipeline.stages.submission import answered, endpoint

POLL_S = 5.0
PENDING_NOTE_S = 30.0
"""A job that waits for a node says so as often."""


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Print a job's log as it grows and return how the job ended.

    Raises:
        WorkError: the head has not answered for `PATIENCE_S`.
        OSError: of our own stdout or stderr, which takes no more.
    """
    address = client.get_address()
    log = _Log(client, job_id)
    while True:
        began_s = time.monotonic()
        try:
            if not log.ended:  # else it would come whole again, as if it were news, while the job's state does not
                asyncio.run(log.print_on())
            with answered(address):
                job = client.get_job_info(job_id)
            if job.status.is_terminal():
                return job
            log.heard_s, log.ended = time.monotonic(), False
        # The connection broke: the job may go on without us. In Python 3.10 asyncio's own TimeoutError is no OSError.
        except (ClientError, OSError, RuntimeError, asyncio.TimeoutError) as error:
            if error is log.final:
                raise
            # Heard in this very attempt, it was we who stood still (^Z): worth another one.
            if log.heard_s < began_s and time.monotonic() - log.heard_s >= PATIENCE_S:
                raise _lost(address) from error
        time.sleep(1)


def _lost(address: str) -> WorkError:
    return WorkError(
        f"the cluster at {shown_address(address)} no longer answers; what is published is kept, send the job again to "
        "a cluster that is up to go on"
    )


class _Log:
    """A job's log on stdout, each part once over all connections.

    `heard_s` is when the head gave a sign of life, `ended` says that the log was read to its end, and `final` is the
    error after which no other connection helps.
    """

    def __init__(self, client: JobSubmissionClient, job_id: str) -> None:
        self._client, self._job_id = client, job_id
        self._printed = 0
        self.heard_s = time.monotonic()
        self.ended = False
        self.final: Exception | None = None

    async def print_on(self) -> None:
        """Print what is new until the log ends. Raises `WorkError` when the head is gone, which a web socket alone
        would not notice.
        """
        stream = self._client.tail_job_logs(self._job_id)  # from its begin
        seen = 0
        while True:
            chunk = asyncio.ensure_future(anext(stream))
            await self._wait(chunk)
            try:
                text = chunk.result()
            except StopAsyncIteration:
                self.ended = True
                return
            self._write("stdout", text[max(0, self._printed - seen) :])
            self.heard_s = time.monotonic()  # only now: a pager may let us wait
            seen += len(text)
            self._printed = max(self._printed, seen)

    async def _wait(self, chunk: asyncio.Future[str]) -> None:
        """Until there is a next part; a job that has none since it waits for a node says so."""
        address = self._client.get_address()
        head = endpoint(address)
        noted_s = time.monotonic()
        while not (await asyncio.wait({chunk}, timeout=POLL_S))[0]:
            now_s = time.monotonic()
            if answers(head):
                self.heard_s = now_s
            elif now_s - self.heard_s >= PATIENCE_S:
                chunk.cancel()
                self.final = _lost(address)
                raise self.final
            if self._printed == 0 and now_s - noted_s >= PENDING_NOTE_S:
                noted_s = now_s
                job = self._client.get_job_info(self._job_id)
                if job.status == JobStatus.PENDING:
                    self._write("stderr", f"waiting: {job.message}\n")

    def _write(self, name: str, text: str) -> None:
        """On our stdout or stderr. What refuses it there, a full disk or a closed pipe, is no lost cluster."""
        stream = getattr(sys, name)
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            error.filename = name
            self.final = error
            raise
