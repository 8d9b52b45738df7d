from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.stages.following import follow


class BrokenOnce:
    """The part of Ray's client that `follow` uses; its first connection breaks in the middle of the log."""

    def __init__(self) -> None:
        self.connections = 0

    def get_address(self) -> str:
        return "http://127.0.0.1:9"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        self.connections += 1
        yield "one\n"
        yield "two\n"
        if self.connections == 1:
            raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
        yield "three\n"

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=JobStatus.SUCCEEDED, driver_exit_code=0)


def test_a_connection_that_breaks_costs_no_line_and_prints_none_twice(capsys: pytest.CaptureFixture[str]) -> None:
    client = BrokenOnce()
    ended = follow(cast(JobSubmissionClient, client), "job")
    assert (ended.driver_exit_code, client.connections) == (0, 2)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
