"""Storage on a real S3 server: the same promises as on a disk."""

from __future__ import annotations

import pickle
import threading
import uuid

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import InputError, WorkError
from pipeline.core.filesystems import open_filesystem


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
        ("foo://x", "s3://"),
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


def test_a_server_that_is_gone_is_one_line(monkeypatch: pytest.MonkeyPatch, s3_root: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    open_filesystem.cache_clear()
    try:
        with pytest.raises(InputError, match="cannot be opened"):
            Store.open(f"{s3_root}/x")
        store = Store(f"{s3_root}/x")  # opened before the server went away
        for call in (lambda: store.write_bytes("a", b"1"), lambda: store.read_bytes("a"), lambda: store.exists("a")):
            with pytest.raises(WorkError, match="cannot .* s3://synthclones-test/x/a"):
                call()
        with pytest.raises(WorkError, match="cannot list"):
            store.list_names("a")
    finally:
        open_filesystem.cache_clear()
