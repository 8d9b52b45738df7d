"""The storage root and what lies in it: atomic writes, manifests, listings, on any URI pyarrow opens.

Local files: temporary name, fsync, rename. Object stores: one whole PUT. Bytes are built first and written in
one call, because pyarrow publishes a partial object when an exception leaves `open_output_stream` on S3.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from pipeline.core.errors import InputError, WorkError

MANIFEST = "manifest.json"


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
        if "://" not in root:
            return cls(str(_local_root(root)))
        store = cls(root.rstrip("/"))
        store._filesystem()
        return store

    @property
    def is_local(self) -> bool:
        """Whether the root is a directory of this machine."""
        return "://" not in self.root

    def uri(self, path: str) -> str:
        """The full path or URI of a file, as users know it."""
        return f"{self.root}/{path}"

    def _filesystem(self) -> tuple[fs.FileSystem, str]:
        try:
            return fs.FileSystem.from_uri(self.root) if not self.is_local else (fs.LocalFileSystem(), self.root)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(
                f"--root {self.root!r} cannot be opened: {error}; give a local path or s3://, gs://"
            ) from error

    def filesystem(self, path: str) -> tuple[fs.FileSystem, str]:
        """(pyarrow file system, path inside it) of a file, e.g. for `pyarrow.parquet` readers."""
        file_system, base = self._filesystem()
        return file_system, f"{base}/{path}"

    def write_bytes(self, path: str, data: bytes) -> None:
        """Publish a file in one atomic step, replacing an older one. Raises `WorkError` when it cannot be written."""
        try:
            self._write_local(Path(self.root) / path, data) if self.is_local else self._write_object(path, data)
        except OSError as error:
            raise WorkError(
                f"cannot write {self.uri(path)}: {error.strerror or error}; "
                "mend the permission or free space, then run the same command again to go on"
            ) from error

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
        with file_system.open_input_file(full) as file:
            return bytes(file.read())

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        file_system, full = self.filesystem(path)
        return bool(file_system.get_file_info(full).type == fs.FileType.File)

    def list_names(self, directory: str) -> list[str]:
        """Sorted names of the published files directly in a directory; empty when it is not there."""
        file_system, full = self.filesystem(directory)
        found = file_system.get_file_info(fs.FileSelector(full, allow_not_found=True))
        return sorted(i.base_name for i in found if i.type == fs.FileType.File and not i.base_name.startswith("."))

    def write_json(self, path: str, value: Any) -> None:
        """Publish a JSON file (sorted keys, one value)."""
        self.write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def read_json(self, path: str) -> Any:
        """A JSON file's value. Raises `FileNotFoundError`; `WorkError` when it is damaged."""
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:  # no JSON, or no text
            raise WorkError(
                f"{self.uri(path)} is damaged ({error}); remove it and run the job that made it again"
            ) from error


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
    manifest = store.read_json(path)
    if not isinstance(manifest, dict):
        raise WorkError(f"{store.uri(path)} is damaged (no mapping); remove it and run the job that made it again")
    return manifest


def sha256_bytes(data: bytes) -> str:
    """sha256 of bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()
