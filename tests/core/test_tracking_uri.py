from pathlib import Path

import pytest
from click import Context

from pipeline.core.artifact import Store
from pipeline.core.config import TrackingConfig
from pipeline.core.tracking_uri import sqlite_path, sqlite_uri, tracking_uri, ui_command


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_config_then_environment_then_the_root(monkeypatch: pytest.MonkeyPatch):
    store = Store("/a b/runs")
    assert tracking_uri(TrackingConfig(), store) == "sqlite:////a%20b/runs/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    assert tracking_uri(TrackingConfig(), store) == "http://env"
    assert tracking_uri(TrackingConfig(uri="http://config"), store) == "http://config"


def test_a_relative_database_means_the_same_for_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(TrackingConfig(uri="sqlite:///x.db"), Store("/r")) == f"sqlite:///{tmp_path}/x.db"
    assert tracking_uri(TrackingConfig(), Store("s3://bucket/x")) == f"sqlite:///{tmp_path}/runs/mlflow.db"


@pytest.mark.parametrize("path", ["/a/b.db", "/a b/%25 #é.db"])
def test_paths_survive_the_uri(path: str):
    assert sqlite_path(sqlite_uri(Path(path))) == Path(path)


def test_the_command_that_opens_it():
    assert ui_command("sqlite:////a/mlflow.db") == "mlflow ui --backend-store-uri 'sqlite:////a/mlflow.db'"
    assert ui_command("http://server:5000") == "open http://server:5000"


def test_the_command_listens_on_this_machine_alone():
    """MLflow's default; another one would put the runs on the network, and the command would have to say --host."""
    from mlflow.cli import cli  # seconds

    command = cli.get_command(Context(cli), "ui")
    (host,) = [option for option in command.params if option.name == "host"]
    assert host.default == "127.0.0.1"


def test_a_password_is_for_the_database_alone():
    uri = "postgresql://me:se%40cret@db:5432/mlflow"
    assert "secret" not in ui_command(uri) and "se%40cret" not in ui_command(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:se%40cret@db:5432/mlflow",
        "postgresql+psycopg://db/m?user=me&password=hush",
        "http://host/?token=hush",
        "https://hush@host",
    ],
)
def test_a_config_takes_no_secret(uri: str):
    with pytest.raises(ValueError, match="PGPASSWORD"):
        TrackingConfig(uri=uri)
