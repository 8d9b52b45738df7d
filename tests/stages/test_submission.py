from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.core.errors import InputError
from pipeline.stages.submission import check_size, connect, follow, package_sizes
from tests.cluster_head import free_ports
from tests.conftest import REPOSITORY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "jobs/a.py": 10, "big/one.bin": 3 << 20, "runs/x.parquet": 5 << 20, ".git/pack": 5 << 20, "kept.txt": 7,
        ".venv/lib/x.so": 9 << 20, "cluster.env": 5, "deep/runs/kept.bin": 20,
    }  # fmt: skip
    for name, size in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    for name in (".gitignore", ".rayignore"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return tmp_path


def test_data_runs_environments_and_history_stay_at_home(folder: Path) -> None:
    sizes = package_sizes(folder)
    assert {name: size for name, size in sizes.items() if "ignore" not in name} == {
        "jobs": 10, "big": 3 << 20, "kept.txt": 7, "deep": 20,
    }  # fmt: skip


def test_a_package_over_the_limit_names_its_biggest_entries(folder: Path) -> None:
    sizes = package_sizes(folder)
    check_size(sizes, 4)
    with pytest.raises(InputError, match=r"holds 3\.0 MiB to send, more than 2 MiB: big 3\.0 MiB, .*\.rayignore"):
        check_size(sizes, 2)


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://host:10001", "auto", "http://"])
def test_an_address_is_that_of_a_dashboard(address: str) -> None:
    with pytest.raises(InputError, match="the address of the cluster's dashboard"):
        connect(address)


def test_an_address_where_nobody_is_says_how_to_get_there() -> None:
    (port,) = free_ports(1)
    with pytest.raises(InputError, match=rf"no cluster answers at http://127\.0\.0\.1:{port}; .*kubectl port-forward"):
        connect(f"http://127.0.0.1:{port}")


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
