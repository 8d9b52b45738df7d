"""A server that answers as Ray's jobs API does, or as another server would, without a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import ray


@contextmanager
def served(answers: Callable[[str, str], tuple[int, bytes]], seconds_per_mib: float = 0) -> Iterator[str]:
    """The address of an HTTP server that gives `answers(method, path)`: status and body; it may read slowly."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                piece = self.rfile.read(min(left, 1 << 18))
                if not piece:  # the client is gone
                    return
                left -= len(piece)
                time.sleep(seconds_per_mib / 4)
            status, body = answers(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class Jobs:
    """The part of Ray's jobs API that a submission needs; another client's job comes between listing and sending."""

    def __init__(self, refuse: tuple[int, bytes] | None = None) -> None:
        self.refuse = refuse
        self.listed: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str) -> tuple[int, bytes]:
        if path == "/api/version":
            return 200, json.dumps({"version": "4", "ray_version": ray.__version__, "ray_commit": ""}).encode()
        if method == "GET":
            return 200, json.dumps(self.listed).encode()
        if self.refuse:
            return self.refuse
        self.listed = [{
            "type": "SUBMISSION", "submission_id": "generate-1f", "entrypoint": "x", "status": "RUNNING",
            "start_time": 0, "metadata": {"sent_by": "ann@desk"},
        }]  # fmt: skip
        return 400, b"Traceback ...\nValueError: Job with submission_id generate-1f already exists."
