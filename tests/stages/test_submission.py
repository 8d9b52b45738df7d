from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobSubmissionClient

from pipeline.core.errors import InputError, WorkError
from pipeline.stages import submission
from pipeline.stages.submission import (
    check_size,
    connect,
    package_sizes,
    sender,
    sent_when_and_by,
    submit_or_follow,
)
from tests.cluster_head import free_ports
from tests.conftest import REPOSITORY
from tests.jobs_api import Jobs, served


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "jobs/a.py": 10, "big/one.bin": 3 << 20, "runs/x.parquet": 5 << 20, ".git/pack": 5 << 20, "kept.txt": 7,
        ".venv/lib/x.so": 9 << 20, "cluster.env": 5, ".env": 5, "deep/aws.pem": 5, ".netrc": 5,
        "deep/runs/kept.bin": 20,
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


def test_gitignore_counts_where_ray_heeds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".rayignore").unlink()
    assert "runs" not in package_sizes(folder)
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")
    assert package_sizes(folder)["runs"] == 5 << 20


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:8265", "ray://host:10001", "auto", "http://", "http://a..b:8265", f"http://{'x' * 64}.org:8265"],
)
def test_an_address_is_that_of_a_dashboard(address: str) -> None:
    with pytest.raises(InputError, match="the address of the cluster's dashboard"):
        connect(address)


def test_an_address_where_nobody_is_says_how_to_get_there() -> None:
    (port,) = free_ports(1)
    with pytest.raises(InputError, match=rf"no cluster answers at http://127\.0\.0\.1:{port}; .*kubectl port-forward"):
        connect(f"http://127.0.0.1:{port}")


def test_a_dashboard_that_never_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # `connect` sets it
    monkeypatch.setattr(submission, "REQUEST_TIMEOUT_S", (5.0, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match=f"what answers at {address} is no dashboard of Ray .*Timeout"):
            connect(address)


def test_a_package_that_goes_slowly_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is one of silence: a whole body given to the socket at once would have to be gone within it."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    package = bytes(24 << 20)  # more than the buffers of two sockets
    with served(Jobs(), seconds_per_mib=0.25) as address:
        client = connect(address)
        monkeypatch.setattr(submission, "REQUEST_TIMEOUT_S", (2.0, 2.0))
        monkeypatch.setattr(submission, "UPLOAD_TIMEOUT_S", (2.0, 30.0))
        assert client._do_request("PUT", "/api/packages/gcs/x.zip", data=package).status_code == 400


@pytest.mark.parametrize("address", ["http://me:hush-1@127.0.0.1:{port}", "http://127.0.0.1:{port}/?token=hush-1"])
def test_a_password_in_an_address_is_in_no_message(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    (port,) = free_ports(1)
    with pytest.raises(InputError, match="no cluster answers at") as caught:
        connect(address.format(port=port))
    assert "hush" not in str(caught.value) and f":{port}" in str(caught.value)


@pytest.mark.parametrize("address", ["me:hush-1@host:8265", "ftp://me:hush-1@host", "http://me:hush-1@host:x"])
def test_a_password_in_a_wrong_address_is_not_said(address: str) -> None:
    with pytest.raises(InputError, match="the address of the cluster's dashboard") as caught:
        connect(address)
    assert "hush" not in str(caught.value) and "@host" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"not here"),
        (500, b"broken"),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b"[1]"),
        (200, b'{"ray_version": "x"}'),
    ],
)
def test_another_server_at_the_address_is_one_line(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")  # `connect` sets it
    with (
        served(lambda method, path: (status, body)) as address,
        pytest.raises(InputError, match=r"what answers at http://\S+ is no dashboard of Ray") as caught,
    ):
        connect(address)
    assert "\n" not in str(caught.value)


def send(client: JobSubmissionClient) -> tuple[str, JobDetails | None]:
    return submit_or_follow(
        client, "generate-1f", lambda job_id: client.submit_job(entrypoint="x", submission_id=job_id)
    )


def test_the_second_of_two_that_send_at_once_follows_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with served(Jobs()) as address:
        job_id, job = send(connect(address))
    assert job is not None and job_id == "generate-1f"
    assert sent_when_and_by(job) == "sent by ann@desk at 1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize(
    ("refuse", "says"),
    [
        ((413, b"<html>too large</html>"), r"HTTP 413 \(<html>too large</html>\); .* takes no package of this size"),
        ((500, b"Traceback\nKeyError: 'x'\n"), r"HTTP 500 \(KeyError: 'x'\); see its log"),
        ((400, b"ValueError: generate-1f already exists."), "HTTP 400"),  # and is not listed: not for ever
        ((200, b"<html>"), "does not answer as it should"),
    ],
)
def test_a_bad_answer_to_a_submission_is_one_line(
    refuse: tuple[int, bytes], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with served(Jobs(refuse)) as address, pytest.raises(WorkError, match=says) as caught:
        send(connect(address))
    assert "\n" not in str(caught.value)


def test_a_job_tells_who_sent_it() -> None:
    (name,) = sender().values()
    assert name.endswith(f"@{socket.gethostname()}") and not name.startswith("@")
