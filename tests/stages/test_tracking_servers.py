"""Tracking on the servers that people have: PostgreSQL, and MLflow's own, on each database, with passwords, lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.stages.run_handle import RunHandle, mlflow_client
from pipeline.stages.tracking import tracked_run
from tests.mlflow_servers import DATABASE_PASSWORD, MlflowServer, postgres_bin, running_postgres, server_with_passwords

ADMIN, PASSWORD = "admin", "a-long-enough-password"


@pytest.fixture
def postgres() -> Iterator[str]:
    programs = postgres_bin()
    if programs is None:
        assert "CI" not in os.environ, "install postgresql"
        pytest.skip("needs postgresql (Debian: apt-get install postgresql)")
    with running_postgres(programs) as uri:
        yield uri


@pytest.fixture(params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MlflowServer]:
    """`mlflow server` on the two databases that people give it."""
    settings, backend = {}, None
    if request.param == "postgresql":
        settings, backend = {"PGPASSWORD": DATABASE_PASSWORD}, request.getfixturevalue("postgres")
    one = MlflowServer(tmp_path, environment=settings, backend=backend)
    one.start()
    yield one
    one.kill()


def start(root: Path, artifact_id: str, config: RunConfig) -> AbstractContextManager[RunHandle]:
    return tracked_run(config, Store.open(str(root)), "train", artifact_id, {"a": 1}, {})


def fetch(run: RunHandle) -> Any:
    return mlflow_client(str(run.uri)).get_run(run.run_id)


def steps(run: RunHandle, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in mlflow_client(str(run.uri)).get_metric_history(run.run_id, name)]


def log_twice(config: RunConfig, root: Path) -> None:
    """A run, and the same taken up again, as after a killed driver."""
    for _ in range(2):
        with tracked_run(config, Store.open(str(root)), "train", "ab", {"a": {"b": 1}}, {}) as run:
            run.log_metrics({"loss": 2.0}, 1)
            run.log_metrics({"loss": 1.0}, 2)
            run.log_artifact("note.txt", "é")
            run.log_dataset("images/x", "x" * 36, "s3://b/images/x", {"images": 2}, "training")
    client = mlflow_client(run.uri)
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED" and found.data.params["a.b"] == "1"
    assert [(p.step, p.value) for p in client.get_metric_history(run.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert [file.path for file in client.list_artifacts(run.run_id)] == ["note.txt"]
    assert len(found.inputs.dataset_inputs) == 1


def test_postgresql_with_its_password_in_the_environment(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(tracking=TrackingConfig(uri=postgres))
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(InputError, match="cannot be used") as caught:
        log_twice(config, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PGPASSWORD", DATABASE_PASSWORD)
    log_twice(config, tmp_path)
    with_password = postgres.replace("mlflow@", f"mlflow:{quote('wrong-' + DATABASE_PASSWORD)}@")
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password)
    with pytest.raises(InputError, match=r":\*\*\*@") as caught:
        log_twice(RunConfig(), tmp_path)
    assert "wrong-" not in str(caught.value)


def test_a_server_with_passwords_takes_them_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # ours for a job, 5 s, is little beside other tests
    server = server_with_passwords(tmp_path, ADMIN, PASSWORD)
    server.start()
    try:
        config = RunConfig(tracking=TrackingConfig(uri=server.uri))
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not-the-password")
        with pytest.raises(InputError, match="cannot be used") as caught:
            log_twice(config, tmp_path)
        assert "not-the-password" not in str(caught.value)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        log_twice(config, tmp_path)
    finally:
        server.kill()


@pytest.mark.faults
def test_a_server_lost_in_the_middle_costs_nothing_but_a_warning(
    server: MlflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    config = RunConfig(tracking=TrackingConfig(uri=server.uri))
    with start(tmp_path, "lost", config) as run:
        run.log_metrics({"loss": 3.0}, 0)
        run.log_artifact("before.txt", "1")
        server.kill()
        begin = time.monotonic()
        run.log_metrics({"loss": 2.0}, 1)
        run.log_artifact("during.txt", "2")
        for epoch in range(2, 50):
            run.log_metrics({"loss": 1.0 / epoch}, epoch)
        assert time.monotonic() - begin < 15
        server.start()
    assert [step for step, _ in steps(run, "loss")] == list(range(50))
    assert fetch(run).info.status == "FINISHED"
    assert [f.path for f in mlflow_client(run.uri).list_artifacts(run.run_id)] == ["before.txt", "during.txt"]
    assert sum("does not answer" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.slow
@pytest.mark.faults
def test_a_server_that_stays_away_ends_no_run_and_is_taken_up_by_the_next(server: MlflowServer, tmp_path: Path):
    config = RunConfig(tracking=TrackingConfig(uri=server.uri))
    with start(tmp_path, "away", config) as run:
        run.log_metrics({"loss": 3.0}, 0)
        server.kill()
        run.log_metrics({"loss": 2.0}, 1)
    server.start()
    assert fetch(run).info.status == "RUNNING"
    with start(tmp_path, "away", config) as again:
        again.log_metrics({"loss": 3.0}, 0)
        again.log_metrics({"loss": 2.0}, 1)
    assert again.run_id == run.run_id
    assert steps(again, "loss") == [(0, 3.0), (1, 2.0)]
    assert fetch(run).info.status == "FINISHED"
