"""Tracking on the servers that people have: PostgreSQL, and MLflow's own server with passwords."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.stages.run_handle import mlflow_client
from pipeline.stages.tracking import tracked_run
from tests.mlflow_servers import DATABASE_PASSWORD, MlflowServer, postgres_bin, running_postgres

ADMIN, PASSWORD = "admin", "a-long-enough-password"


@pytest.fixture
def postgres() -> Iterator[str]:
    programs = postgres_bin()
    if programs is None:
        assert "CI" not in os.environ, "install postgresql"
        pytest.skip("needs postgresql (Debian: apt-get install postgresql)")
    with running_postgres(programs) as uri:
        yield uri


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
    (tmp_path / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\n"
        f"admin_username = {ADMIN}\nadmin_password = {PASSWORD}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32}
    server = MlflowServer(tmp_path, ["--app-name", "basic-auth"], settings)
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
