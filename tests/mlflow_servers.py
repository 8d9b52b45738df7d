"""Real servers for MLflow's tests, on loopback: `mlflow server`, with passwords if wanted, and Debian's PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

DATABASE_PASSWORD = "pass word@1"  # in a URI it must be quoted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class MlflowServer:
    """A real `mlflow server` on a free port, which may be killed and started again."""

    def __init__(
        self,
        directory: Path,
        words: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        backend: str | None = None,
    ):
        self.directory, self.words, self.environment = directory, words, environment or {}
        self.backend = backend or f"sqlite:///{directory}/server.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", self.backend]
        command += ["--artifacts-destination", str(self.directory / "artifacts"), *self.words]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nothing here needs
            "OMP_NUM_THREADS": "1",
            **self.environment,
        }
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.directory, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except urllib.error.HTTPError:
                return  # it asks for a password: it is there
            except OSError:
                time.sleep(0.5)
        self.kill()
        raise AssertionError((self.directory / "log").read_text())

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # the group that this test started: the server and its workers
        self.process.wait()


def server_with_passwords(folder: Path, user: str, password: str) -> MlflowServer:
    """A server, not started yet, that takes one user by HTTP's basic authentication; `auth.ini` holds the password."""
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        f"admin_username = {user}\nadmin_password = {password}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    settings = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"), "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32}
    return MlflowServer(folder, ["--app-name", "basic-auth"], settings)


def postgres_bin() -> Path | None:
    """Where Debian, or the PATH, has PostgreSQL's programs; the newest."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).resolve().parent if on_path else None


@contextmanager
def running_postgres(programs: Path) -> Iterator[str]:
    """A server with one database and a password; gives its SQLAlchemy URI, without the password."""
    port, user = free_port(), "nobody" if os.getuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if user:
            shutil.chown(folder, user)
        data, secret = Path(folder) / "data", Path(folder) / "secret"
        secret.write_text(DATABASE_PASSWORD)
        secret.chmod(0o644)
        make = [programs / "initdb", "-D", data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={secret}"]
        subprocess.run(make, check=True, user=user, cwd=folder, capture_output=True)
        serve = [programs / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1"]
        serve += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen(serve, stdout=log, stderr=log, user=user, cwd=folder)
        try:
            for _ in range(100):
                ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
                if subprocess.run(ready, check=False).returncode == 0:
                    break
                time.sleep(0.2)
            else:
                raise AssertionError((Path(folder) / "log").read_text())
            yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # "fast": ends its sessions
            process.wait()
