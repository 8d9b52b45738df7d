"""A model hub on this machine: what `huggingface_hub` asks for, of one repository, with every call counted."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

REPO = "synthclones-test/tiny"
COMMIT = "a1" * 20
SLOW_PART = 1 << 14  # bytes between two waits


class Hub(ThreadingHTTPServer):
    """Serves the files under a directory as the only commit of `REPO`.

    Args:
        directory: of the files.
        wait_s: after every `SLOW_PART` bytes, so that a fetch can be killed in the middle.
    """

    daemon_threads = True

    def __init__(self, directory: Path, wait_s: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}
        self.wait_s = wait_s
        self.calls: Counter[str] = Counter()
        """Number of calls by `GET path`; a file's path is its name in the repository."""
        self.bytes_sent = 0

    @property
    def environment(self) -> dict[str, str]:
        """What makes `huggingface_hub` of another process come here."""
        host, port = self.server_address[:2]
        return {"HF_ENDPOINT": f"http://{host!s}:{port}", "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}


@contextmanager
def running_hub(directory: Path, wait_s: float = 0.0) -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    with Hub(directory, wait_s) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        prefix = f"/{REPO}/resolve/{COMMIT}/"
        name = path.removeprefix(prefix)
        self.server.calls[f"{self.command} {name}"] += 1
        if path == f"/api/models/{REPO}/tree/{COMMIT}":
            self._send(json.dumps([_entry(n, data) for n, data in self.server.files.items()]).encode(), {})
        elif path.startswith(prefix) and name in self.server.files:
            data = self.server.files[name]
            self._send(data, {"ETag": f'"{_entry(name, data)["oid"]}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound" if REPO not in path else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(data), SLOW_PART):
            self.wfile.write(data[start : start + SLOW_PART])
            self.server.bytes_sent += len(data[start : start + SLOW_PART])
            time.sleep(self.server.wait_s)


def _entry(name: str, data: bytes) -> dict[str, object]:
    """A file as git knows it."""
    return {
        "type": "file",
        "path": name,
        "size": len(data),
        "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
    }
