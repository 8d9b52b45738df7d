"""Where MLflow's runs go."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.core.artifact import Store
from pipeline.core.config import TrackingConfig
from pipeline.core.credentials import covered

SQLITE = "sqlite:///"


def tracking_uri(tracking: TrackingConfig, store: Store) -> str:
    """The config's URI, else MLFLOW_TRACKING_URI, else `mlflow.db` in the local root (`runs/` for a remote one)."""
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None:
        return sqlite_uri(local_base(store) / "mlflow.db")
    # Workers have another working directory, so a relative path would mean another file there.
    return sqlite_uri(sqlite_path(uri).absolute()) if uri.startswith(SQLITE) else uri


def local_base(store: Store) -> Path:
    """The local directory for a database and artifacts."""
    return Path(store.root) if store.is_local else Path("runs").absolute()


def sqlite_uri(path: Path) -> str:
    """The URI of a database file; MLflow reads `%20` and the like in it."""
    return f"{SQLITE}{quote(str(path))}"


def sqlite_path(uri: str) -> Path:
    """The file of a `sqlite:///` URI."""
    return Path(unquote(uri.removeprefix(SQLITE)))


def ui_command(uri: str) -> str:
    """The command that opens a tracking URI in a browser, without a password of it."""
    uri = covered(uri)
    return f"open {uri}" if uri.startswith("http") else f"mlflow ui --backend-store-uri '{uri}'"
