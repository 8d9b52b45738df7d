from __future__ import annotations

import errno
import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.artifact import Store, read_manifest, sha256_bytes
from pipeline.core.errors import InputError, WorkError
from tests.conftest import REPOSITORY


@pytest.fixture(params=["path", "uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same root as a path and as a URI."""
    return Store.open(str(tmp_path / "root") if request.param == "path" else f"file://{tmp_path}/root/")


def test_what_is_written_is_read_and_listed(store: Store) -> None:
    store.write_bytes("a/y.bin", b"1")
    store.write_bytes("a/y.bin", b"22")
    store.write_json("a/x.json", {"é": [1, 2.5, None]})
    assert store.read_bytes("a/y.bin") == b"22"
    assert store.read_json("a/x.json") == {"é": [1, 2.5, None]}
    assert store.list_names("a") == ["x.json", "y.bin"]
    assert store.exists("a/x.json") and not store.exists("a/z") and not store.exists("a")
    assert store.uri("a/x.json").endswith("/root/a/x.json") and "//a" not in store.uri("a/x.json")


def test_a_table_is_read_without_a_scan_that_can_abort_the_process_at_its_end(store: Store) -> None:
    """Which modules are imported is seen in a process of its own: other tests read by other means."""
    buffer = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2]}), buffer)
    store.write_bytes("a/table.parquet", buffer.getvalue())
    code = f"""
import sys
from pipeline.core.artifact import Store
print(Store.open({store.root!r}).read_table("a/table.parquet").to_pydict(), "pyarrow.dataset" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert said.stdout == "{'n': [1, 2]} False\n"


def test_a_missing_folder_lists_as_empty_and_a_missing_file_raises(store: Store) -> None:
    assert store.list_names("nowhere") == []
    assert not store.exists("nowhere/file")
    with pytest.raises(FileNotFoundError):
        store.read_bytes("nowhere/file")


def test_a_store_travels_to_workers(store: Store) -> None:
    assert pickle.loads(pickle.dumps(store)) == store


def test_a_relative_root_does_not_move_with_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = Store.open("runs")
    monkeypatch.chdir("/")
    assert relative.root == str(tmp_path / "runs")


def test_a_file_uri_is_its_path(tmp_path: Path) -> None:
    assert Store.open(f"file://{tmp_path}/a%20b/") == Store.open(str(tmp_path / "a b"))
    assert Store.open(f"file://{tmp_path}").is_local


def test_opening_a_store_writes_nothing(tmp_path: Path) -> None:
    Store.open(str(tmp_path / "new" / "deeper"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("root", "says"),
    [
        ("foo://bar", "foo://; give a local path or s3://, gs://"),
        ("hdfs://host/x", "hdfs://"),
        ("file://host/x", "on this machine"),
        ("file:runs://x", "file:runs://"),
        ("", "empty"),
        ("s3://", "names no bucket"),
        ("s3:///", "names no bucket"),
        ("gs://", "names no bucket"),
        ("s3://[bucket]/x", "s3://[bucket]/x"),
        ("gs://[x", "gs://[x"),
        ("file://[x", "file://[x"),
        ("s3:/bucket/x", "lacks a slash"),
        ("file:/tmp/x", "lacks a slash"),
        ("/dev/null/x", "/dev/null"),
        ("~no-such-user-here/runs", "no-such-user-here"),
        ("x" * 300, "ile name too long"),
    ],
)
def test_a_root_that_cannot_be_is_an_input_error(root: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        Store.open(root)
    assert says in str(caught.value)


def test_a_root_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="not a folder"):
            Store.open(str(root))


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("a/x", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match="No space left"):
        store.write_bytes("a/x", b"new")
    assert store.read_bytes("a/x") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_a_temporary_file_of_a_killed_writer_is_never_listed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("a/x", b"1")
    (tmp_path / "a" / ".y.0123.tmp").write_bytes(b"half")
    assert store.list_names("a") == ["x"]


def test_what_a_killed_writer_left_is_found_with_its_age(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_bytes("a/x", b"1")
    (tmp_path / "a" / ".y.0123.tmp").write_bytes(b"half")
    os.utime(tmp_path / "a" / ".y.0123.tmp", (time.time() - 100,) * 2)
    ((path, age_s),) = store.leftovers("a")
    assert path == "a/.y.0123.tmp" and age_s == pytest.approx(100, abs=20)
    assert store.leftovers("nowhere") == []


def test_many_writers_of_one_name_leave_one_whole_file(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    contents = [bytes([i]) * 200_000 for i in range(8)]
    threads = [threading.Thread(target=store.write_bytes, args=("a/x", content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_bytes("a/x") in contents
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


def test_damaged_json_is_a_work_error_that_names_the_file(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    for damaged in (b'{"a": 1', b"\xff\xfe\x00", b""):
        store.write_bytes("a/manifest.json", damaged)
        with pytest.raises(WorkError, match=r"a/manifest\.json is damaged"):
            store.read_json("a/manifest.json")


def test_a_missing_manifest_says_how_to_make_it(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(InputError, match=r"images/0 has no manifest\.json; run jobs\.generate first"):
        read_manifest(store, "images/0", "run jobs.generate first")
    store.write_json("images/0/manifest.json", {"rows": 3})
    assert read_manifest(store, "images/0", "") == {"rows": 3}


def test_json_is_the_same_bytes_for_the_same_value(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    store.write_json("x", {"b": 1, "a": 2})
    store.write_json("y", {"a": 2, "b": 1})
    assert store.read_bytes("x") == store.read_bytes("y") and json.loads(store.read_bytes("x")) == {"a": 2, "b": 1}


def test_sha256_is_the_known_one() -> None:
    assert sha256_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
