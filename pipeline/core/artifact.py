"""The storage root and what lies in it: atomic writes, manifests, listings, on disks and object stores.

Local files: temporary name, fsync, rename. Object stores: an upload in parts (begin, parts, complete), of which nothing
is seen before the last request. Bytes are built first and written in one call, because pyarrow publishes a partial
object when an exception leaves `open_output_stream` on S3.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipeline.core.errors import InputError, OutageError, WorkError
from pipeline.core.filesystems import is_final, open_filesystem, outages_waited_out
from pipeline.core.json_object import MEND, parse_json_object

T = TypeVar("T")

MANIFEST = "manifest.json"
REMOTE_SCHEMES = ("s3", "gs")
"""Object stores, on which an upload is atomic."""
_MEND_ROOT = "give a local path or s3://, gs://, and check the address and the credentials in the environment"
_MEND_WRITE = "mend the permission, the connection or free space, then run the same command again to go on"
_MEND_READ = "mend the permission or the connection, then run the same command again to go on"


@dataclass(frozen=True)
class Store:
    """A storage root. Paths are relative to it, with forward slashes. Pickles, so it goes to Ray workers as it is.

    Args:
        root: a local path (made absolute by `Store.open`) or a URI such as `s3://bucket/prefix`.
    """

    root: str

    @classmethod
    def open(cls, root: str) -> Store:
        """A store for a path or URI; writes nothing. Raises `InputError` when pyarrow cannot open it."""
        if not root:
            raise InputError("--root is empty; give a local path or s3://, gs://")
        if root.startswith("file://"):  # a disk, with a disk's rename: the object stores' way of writing is not atomic
            root = _path_of_file_uri(root)
        if "://" not in root:
            if (scheme := root.partition(":")[0]) in (*REMOTE_SCHEMES, "file") and scheme != root:
                raise InputError(f"--root {root!r} lacks a slash; write {scheme}://…, or ./{scheme}:… for a folder")
            return cls(str(_local_root(root)))
        if (scheme := root.partition("://")[0]) not in REMOTE_SCHEMES:
            raise InputError(f"--root {root!r}: no storage is called {scheme}://; give a local path or s3://, gs://")
        if not _split_uri(root).netloc:
            raise InputError(f"--root {root!r} names no bucket, e.g. {scheme}://bucket/prefix; is a variable empty?")
        store = cls(root.rstrip("/"))
        try:
            file_system, base = open_filesystem(store.root)
            bucket = base.partition("/")[0]
            if file_system.type_name == "s3" and file_system.get_file_info(bucket).type == fs.FileType.NotFound:
                raise InputError(f"--root {root!r}: there is no bucket {bucket!r}; create it, or give another root")
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"--root {root!r} cannot be opened: {_reason(error)}; {_MEND_ROOT}") from error
        return store

    @property
    def is_local(self) -> bool:
        """Whether the root is a directory of this machine."""
        return "://" not in self.root

    def uri(self, path: str) -> str:
        """The full path or URI of a file, as users know it."""
        return f"{self.root}/{path}"

    def filesystem(self, path: str) -> tuple[fs.FileSystem, str]:
        """(pyarrow file system, path inside it) of a file, e.g. for `pyarrow.parquet` readers."""
        file_system, base = open_filesystem(self.root)
        return file_system, f"{base}/{path}"

    @contextmanager
    def _reaching(self, what: str, path: str, mend: str) -> Iterator[None]:
        """Errors of a disk or a server become one `WorkError`; a file that is not there stays `FileNotFoundError`."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            kind = WorkError if self.is_local or is_final(error) else OutageError
            raise kind(f"cannot {what} {self.uri(path)}: {_reason(error)}; {mend}") from error
        except pa.ArrowException as error:  # Google's store on a request that it does not understand
            raise WorkError(f"cannot {what} {self.uri(path)}: {_reason(error)}; {mend}") from error

    def read_with(self, path: str, read: Callable[[], T]) -> T:
        """What a reader of pyarrow's gives for a file, tried again while the server does not answer.

        Args:
            path: of the file.
            read: reads it, and raises what it likes about damaged content.

        Raises:
            OutageError: the server does not answer for `OUTAGE_PATIENCE_S`.
            Exception: what `read` raised while the server answers.
        """

        def attempt() -> T:
            try:
                return read()
            except (OSError, pa.ArrowException):
                if not self.is_local:
                    self._is_file(path)  # raises OutageError: then the content is not what was wrong
                raise

        return outages_waited_out(attempt)

    def _is_file(self, path: str) -> bool:
        file_system, full = self.filesystem(path)
        with self._reaching("look for", path, _MEND_READ):
            return bool(file_system.get_file_info(full).type == fs.FileType.File)

    def write_bytes(self, path: str, data: bytes, patience_s: float | None = None) -> None:
        """Publish a file in one atomic step, replacing an older one. Raises `WorkError` when it cannot be written.

        `patience_s`: how long a server may not answer, default `pipeline.core.filesystems.OUTAGE_PATIENCE_S`.
        """

        def write() -> None:
            with self._reaching("write", path, _MEND_WRITE):
                self._write_local(Path(self.root) / path, data) if self.is_local else self._write_object(path, data)

        try:
            outages_waited_out(write, patience_s)
        except FileNotFoundError as error:  # a bucket or folder that went away
            raise WorkError(f"cannot write {self.uri(path)}: {_reason(error)}; {_MEND_WRITE}") from error

    @staticmethod
    def _write_local(target: Path, data: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename itself must survive a power cut
        finally:
            os.close(directory)

    def _write_object(self, path: str, data: bytes) -> None:
        file_system, full = self.filesystem(path)
        with file_system.open_output_stream(full) as stream:
            stream.write(data)

    def read_bytes(self, path: str) -> bytes:
        """The content of a file. Raises `FileNotFoundError`."""
        file_system, full = self.filesystem(path)

        def read() -> bytes:
            with self._reaching("read", path, _MEND_READ), file_system.open_input_file(full) as file:
                return bytes(file.read())

        return outages_waited_out(read)

    def read_table(self, path: str) -> pa.Table:
        """The whole of a Parquet file of this project's size.

        Raises:
            FileNotFoundError: it is not there.
            pa.ArrowException, OSError, ValueError: it is damaged or no Parquet.
        """
        # pq.read_table scans in threads that may outlive it: of 152 processes that ended right after one on a busy
        # machine 17 were aborted (pyarrow 25.0.1), of 416 none after this. Its imports take a second, too.
        return pq.ParquetFile(pa.BufferReader(self.read_bytes(path))).read()

    def delete(self, path: str, patience_s: float | None = None) -> None:
        """Remove a file; one that is not there is no error. Raises `WorkError` when it cannot be removed.

        `patience_s`: as `write_bytes`.
        """
        file_system, full = self.filesystem(path)

        def remove() -> None:
            with suppress(FileNotFoundError), self._reaching("remove", path, _MEND_WRITE):
                file_system.delete_file(full)

        outages_waited_out(remove, patience_s)

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return outages_waited_out(partial(self._is_file, path))

    def list_names(self, directory: str) -> list[str]:
        """Sorted names of the published files directly in a directory; empty when it is not there."""
        file_system, full = self.filesystem(directory)

        def look() -> list[fs.FileInfo]:
            with self._reaching("list", directory, _MEND_READ):
                return list(file_system.get_file_info(fs.FileSelector(full, allow_not_found=True)))

        found = outages_waited_out(look)
        return sorted(i.base_name for i in found if i.type == fs.FileType.File and not i.base_name.startswith("."))

    def leftovers(self, directory: str) -> list[tuple[str, float]]:
        """(path, age in seconds) of the temporary files in a directory, which a killed writer leaves behind.

        None on an object store: what it keeps of a cut upload no listing shows (docs/clusters.md).
        """
        folder = Path(self.root) / directory
        if not self.is_local or not folder.is_dir():
            return []
        found = []
        for file in sorted(folder.glob(".*.tmp")):
            with suppress(FileNotFoundError):  # its writer has just finished
                found.append((f"{directory}/{file.name}", time.time() - file.stat().st_mtime))
        return found

    def write_json(self, path: str, value: Any, patience_s: float | None = None, indent: int | None = 1) -> None:
        """Publish a JSON file (sorted keys, one value), as `write_bytes`; without an indent on one line."""
        text = json.dumps(value, indent=indent, sort_keys=True, ensure_ascii=False) + "\n"
        self.write_bytes(path, text.encode(), patience_s)

    def read_json(self, path: str, mend: str = MEND) -> dict[str, Any]:
        """A JSON file's object. Raises `FileNotFoundError`; `WorkError` when it is damaged, also for a key it lacks."""
        return parse_json_object(self.read_bytes(path), self.uri(path), mend)


def _split_uri(root: str) -> SplitResult:
    """The parts of a root that is a URI. Raises `InputError` when it is none, e.g. with a bracket in the bucket."""
    try:
        return urlsplit(root)
    except ValueError as error:
        raise InputError(f"--root {root!r} cannot be opened: {_reason(error)}; {_MEND_ROOT}") from error


def _path_of_file_uri(root: str) -> str:
    """The path of `file:///path`. Raises `InputError` when the URI names another machine."""
    parts = _split_uri(root)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise InputError(f"--root {root!r} is no file on this machine; give file:///path or just /path")
    return unquote(parts.path)


def _local_root(root: str) -> Path:
    """The absolute path of a local root. Raises `InputError` when no folder can be there."""
    try:
        path = Path(root).expanduser().absolute()
        there = next(parent for parent in (path, *path.parents) if parent.exists())
    except (RuntimeError, OSError) as error:  # an unknown ~user; a name that is too long
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"--root {root[:80]!r} cannot be opened: {reason}; give another path") from error
    if not there.is_dir():
        raise InputError(f"--root {root!r} cannot be opened: {there} is not a folder; give another path")
    return path


def read_manifest(store: Store, directory: str, mend: str) -> dict[str, Any]:
    """The manifest of an artifact. Raises `InputError` naming `mend` when the artifact is not there."""
    path = f"{directory}/{MANIFEST}"
    if not store.exists(path):
        raise InputError(f"{store.uri(directory)} has no {MANIFEST}; {mend}")
    return store.read_json(path)


def _reason(error: BaseException) -> str:
    """An error of a file system as one short line; Arrow's are long and end with advice for its developers."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).partition(" Detail:")[0].split())[:200]


def sha256_bytes(data: bytes) -> str:
    """sha256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
