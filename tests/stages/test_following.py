from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from pipeline.core.errors import WorkError
from pipeline.stages import following

BREAK = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")


class Job:
    """The part of Ray's client that `follow` uses: a job of three lines, at an address where nobody is.

    Args:
        breaks: so many connections break in the middle of the log.
        pause_s: between the lines.
    """

    def __init__(self, breaks: int = 0, pause_s: float = 0) -> None:
        self.connections = 0
        self._breaks, self._pause_s = breaks, pause_s

    def get_address(self) -> str:
        return "http://127.0.0.1:9"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.connections += 1
        yield "one\n"
        await asyncio.sleep(self._pause_s)
        yield "two\n"
        if self.connections <= self._breaks:
            raise BREAK
        yield "three\n"

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)


class Untold(Job):
    """Its log can be read again and again, how it ended cannot."""

    def get_job_info(self, job_id: str) -> Any:
        raise RuntimeError("Request failed with status code 500: broken.")


class Stopped(Job):
    """Its follower stands still for a while, as after ^Z, and finds the connection broken."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        async for text in super().tail_job_logs(job_id):
            yield text
            if self.connections == 1:
                time.sleep(self._seconds)  # noqa: ASYNC251 - the whole process stands still
                raise BREAK


class Silent(Job):
    """Its head is gone: the web socket says nothing, not even that it is closed. A password stands in its address."""

    def get_address(self) -> str:
        return "http://me:hush-1@127.0.0.1:9"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.connections += 1
        await asyncio.sleep(3600)
        yield ""


@pytest.fixture
def patience_s(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(following, "PATIENCE_S", 2.0)
    monkeypatch.setattr(following, "POLL_S", 0.1)
    return 2.0


def follow(job: Job) -> JobDetails:
    return following.follow(cast(JobSubmissionClient, job), "job")


def test_a_connection_that_breaks_costs_no_line_and_prints_none_twice(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job(breaks=1)
    assert (follow(job).driver_exit_code, job.connections) == (0, 2)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_breaks_that_lie_further_apart_than_the_patience_are_each_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 1.5)
    job = Job(breaks=3, pause_s=1.0)
    assert (follow(job).driver_exit_code, job.connections) == (0, 4)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_follower_that_was_stopped_itself_asks_once_more(
    patience_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Stopped(patience_s + 0.1)
    assert (follow(job).driver_exit_code, job.connections) == (0, 2)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_head_that_is_gone_without_a_word_is_waited_for_once(patience_s: float) -> None:
    job, start_s = Silent(), time.monotonic()
    with pytest.raises(WorkError, match="no longer answers"):
        follow(job)
    assert job.connections == 1 and time.monotonic() - start_s >= patience_s


def test_a_lost_cluster_is_named_without_its_password(patience_s: float) -> None:
    with pytest.raises(WorkError, match=r"^the cluster at http://\*\*\*@127\.0\.0\.1:9 no longer answers"):
        follow(Silent())


def test_a_log_that_comes_again_and_again_does_not_hide_that_the_job_is_not_told(
    patience_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Untold()
    with pytest.raises(WorkError, match="no longer answers"):
        follow(job)
    assert job.connections == 1 and capsys.readouterr().out == "one\ntwo\nthree\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE])
def test_our_own_output_that_takes_no_more_is_no_lost_cluster(
    number: int, patience_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(text: str) -> None:
        raise OSError(number, os.strerror(number))

    job = Job()
    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=refuse, flush=lambda: None))
    with pytest.raises(OSError) as caught:
        follow(job)
    assert (caught.value.errno, caught.value.filename, job.connections) == (number, "stdout", 1)
