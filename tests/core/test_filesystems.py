"""Storage on a real S3 server: the same promises as on a disk. Of Google's store only the answers are made up."""

from __future__ import annotations

import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, OutageError, WorkError
from pipeline.core.filesystems import MAX_ATTEMPTS, is_final, open_filesystem
from tests.faults.store_proxy import StoreProxy
from tests.gcs_answers import GcsAnswers
from tests.s3_server import free_ports, running_s3_server


@pytest.fixture
def store(s3_root: str) -> Store:
    return Store.open(f"{s3_root}/{uuid.uuid4().hex}/")


def test_what_is_written_is_read_and_listed(store: Store) -> None:
    store.write_bytes("a/y.bin", b"1")
    store.write_bytes("a/y.bin", b"22")
    store.write_json("a/x.json", {"é": [1, 2.5, None]})
    assert store.read_bytes("a/y.bin") == b"22"
    assert store.read_json("a/x.json") == {"é": [1, 2.5, None]}
    assert store.list_names("a") == ["x.json", "y.bin"]
    assert store.exists("a/x.json") and not store.exists("a/z") and not store.exists("a")
    assert store.list_names("nowhere") == []
    with pytest.raises(FileNotFoundError):
        store.read_bytes("a/nothing")


def test_an_object_of_many_parts_is_whole(store: Store) -> None:
    data = bytes(range(256)) * 100_000  # 25.6 MB: pyarrow sends it in parts
    store.write_bytes("big", data)
    assert store.read_bytes("big") == data


def test_many_writers_of_one_name_leave_one_whole_object(store: Store) -> None:
    contents = [bytes([i]) * 200_000 for i in range(6)]
    threads = [threading.Thread(target=store.write_bytes, args=("a/x", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_bytes("a/x") in contents and store.list_names("a") == ["x"]


def test_a_store_travels_and_holds_no_secret(store: Store) -> None:
    assert pickle.loads(pickle.dumps(store)) == store
    assert b"test-secret" not in pickle.dumps(store)


def test_a_file_system_is_opened_once(s3_root: str) -> None:
    assert open_filesystem(s3_root)[0] is open_filesystem(s3_root)[0]


def test_a_bucket_that_is_not_there_is_an_input_error(s3_root: str) -> None:
    with pytest.raises(InputError, match="no bucket 'synthclones-none'"):
        Store.open("s3://synthclones-none/x")


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("s3://key:word@bucket/x", "AWS_ENDPOINT_URL"),
        ("s3://bucket?region=x", "AWS_ENDPOINT_URL"),
        ("s3:///x", "bucket"),
    ],
)
def test_a_root_that_cannot_be_is_an_input_error(root: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Store.open(root)


def test_wrong_credentials_are_an_input_error_that_names_none(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    open_filesystem.cache_clear()
    try:
        with pytest.raises(InputError, match="cannot be opened") as caught:
            Store.open(f"{s3_root}/x")
        assert "planted-secret" not in str(caught.value)
    finally:
        open_filesystem.cache_clear()


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        ("When uploading part: AWS Error REQUEST_TIMEOUT during UploadPart operation (HTTP status 400): paused", False),
        (
            "AWS Error UNKNOWN (HTTP status 400) during PutObject operation: RequestTimeout: Your socket connection",
            False,
        ),
        ("AWS Error UNKNOWN (HTTP status 400) during PutObject operation: InvalidArgument", True),
        ("AWS Error ACCESS_DENIED during PutObject operation: no", True),
        ("AWS Error SLOW_DOWN during PutObject operation (HTTP status 503)", False),
    ],
)
def test_answers_that_will_not_change_are_told_from_the_others(answer: str, final: bool) -> None:
    assert is_final(OSError(answer)) is final


def read_schema(store: Store) -> pa.Schema:
    file_system, path = store.filesystem("a")
    return pq.read_schema(path, filesystem=file_system)


@pytest.fixture
def dead_server(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that was opened before its server went away."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    open_filesystem.cache_clear()
    yield Store(f"{s3_root}/x")
    open_filesystem.cache_clear()


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("cannot write", lambda store: store.write_bytes("a", b"1")),
        ("cannot read", lambda store: store.read_bytes("a")),
        ("cannot look for", lambda store: store.read_with("a", lambda: read_schema(store))),
    ],
)
def test_a_server_that_is_gone_is_one_line(
    what: str, call: Callable[[Store], object], dead_server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.core.filesystems.OUTAGE_PATIENCE_S", 0)
    with pytest.raises(OutageError, match=f"{what} s3://synthclones-test/x/a: .*; mend the .*connection"):
        call(dead_server)


def test_opening_at_a_server_that_is_not_there_fails_in_seconds(dead_server: Store) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        Store.open(dead_server.root)


def test_an_outage_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is killed, a writer and a reader begin, the server comes back: both end as if nothing had been."""
    ports = free_ports(8)
    with running_s3_server(tmp_path, "outage", ports) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        open_filesystem.cache_clear()
        store = Store.open("s3://outage/x")
        store.write_bytes("before", b"1")
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(store.write_bytes, "after", b"2")
        reading = pool.submit(store.read_bytes, "before")
        time.sleep(6)  # longer than the file system's own tries
        assert not writing.done() and not reading.done()
        with running_s3_server(tmp_path, "outage", ports):
            writing.result(timeout=100)
            assert reading.result(timeout=100) == b"1"
            assert store.read_bytes("after") == b"2"
    open_filesystem.cache_clear()


def test_damaged_content_on_a_server_that_answers_is_no_outage(store: Store) -> None:
    store.write_bytes("a", b"no parquet")
    with pytest.raises((OSError, pa.ArrowException)):
        store.read_with("a", lambda: read_schema(store))


@pytest.mark.parametrize("megabytes", [3, 22])
def test_an_upload_that_is_cut_leaves_the_old_object(
    megabytes: int, store: Store, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 MB go in parts: cut within the first, and after two."""
    store.write_bytes("a", b"old")
    new = bytes(range(256)) * 120_000
    monkeypatch.setattr("pipeline.core.filesystems.OUTAGE_PATIENCE_S", 0)
    with StoreProxy(os.environ["AWS_ENDPOINT_URL"]).serving() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        open_filesystem.cache_clear()
        proxy.cut_after(megabytes << 20)
        with pytest.raises(OutageError, match="cannot write"):
            store.write_bytes("a", new)
        assert proxy.faults
        proxy.set_mode("pass")
        assert store.read_bytes("a") == b"old" and store.list_names("") == ["a"]
        store.write_bytes("a", new)
        assert store.read_bytes("a") == new
    open_filesystem.cache_clear()


def test_a_first_request_that_fails_publishes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.core.filesystems.OUTAGE_PATIENCE_S", 0)
    with StoreProxy(os.environ["AWS_ENDPOINT_URL"]).serving() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        open_filesystem.cache_clear()
        proxy.fail_next(MAX_ATTEMPTS)
        with pytest.raises(OutageError, match="cannot write"):
            store.write_bytes("a", bytes(12 << 20))
        assert proxy.faults == MAX_ATTEMPTS and not store.exists("a")
    open_filesystem.cache_clear()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[GcsAnswers]:
    """Google's store, as a list of answers."""
    with GcsAnswers().serving() as server:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", server.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr("pipeline.core.filesystems.GCS_RETRY_S", 0.5)
        open_filesystem.cache_clear()
        yield server
    open_filesystem.cache_clear()


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "bucket does not exist"),
        (400, "INVALID_ARGUMENT"),
    ],
)
def test_googles_last_word_is_not_asked_for_again(status: int, says: str, google: GcsAnswers) -> None:
    google.answers = [(status, "The specified bucket does not exist.")]
    with pytest.raises(WorkError, match=f"cannot write gs://anonymous@bucket/x/a: .*{says}") as caught:
        Store.open("gs://anonymous@bucket/x").write_bytes("a", b"1", 3.0)
    assert type(caught.value) is WorkError and google.num_requests == 1


def test_googles_client_gives_a_server_that_is_down_back_to_our_patience(google: GcsAnswers) -> None:
    google.answers = [*[(503, "down")] * 3, (403, "the client itself has waited")]
    with pytest.raises(OutageError, match="cannot write gs://anonymous@bucket/x/a: .*UNAVAILABLE"):
        Store.open("gs://anonymous@bucket/x").write_bytes("a", b"1", 0)


@pytest.mark.parametrize(
    ("query", "seconds"), [("", 0.5), ("?project_id=mine", 0.5), ("?project_id=mine&retry_limit_seconds=7", 7)]
)
def test_the_options_of_a_google_uri_count(query: str, seconds: float, google: GcsAnswers) -> None:
    file_system, path = open_filesystem(f"gs://anonymous@bucket/x{query}")
    _, (options,) = file_system.__reduce__()
    assert path == "bucket/x" and options["anonymous"] and (options["project_id"] == "mine") is bool(query)
    assert options["retry_time_limit"] == timedelta(seconds=seconds)
