"""A proxy before a real S3 server: it passes everything on, or answers 500, or does not answer at all."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

Mode = Literal["pass", "500", "silence"]
ANSWER = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class StoreProxy:
    """Where it listens is `endpoint`; `faults` counts the requests that it answered with 500 or not at all."""

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        assert parts.hostname and parts.port
        self._target = (parts.hostname, parts.port)
        self._mode: Mode = "pass"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.faults = 0
        self._bytes_left: int | None = None
        self._failures_left = 0
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # whoever went away first
                    proxy._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def set_mode(self, mode: Mode) -> None:
        """From now on; connections of before are cut, also in the middle of an object."""
        with self._lock:
            self._mode = mode
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def cut_after(self, num_bytes: int) -> None:
        """When so many more bytes have gone to the server, all connections are cut and from then on it says 500."""
        self._bytes_left = num_bytes

    def fail_next(self, num_requests: int) -> None:
        """So many connections of from now on get a 500, those after them pass."""
        self._failures_left = num_requests

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            if self._bytes_left is None:
                return
            self._bytes_left -= num_bytes
            if self._bytes_left > 0:
                return
            self._bytes_left = None
        self.set_mode("500")

    @contextmanager
    def serving(self) -> Iterator[StoreProxy]:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    @contextmanager
    def _known(self, connection: socket.socket) -> Iterator[Mode]:
        with self._lock:
            self._open.add(connection)
            mode = self._mode
            if self._failures_left > 0:
                self._failures_left -= 1
                mode = "500"
        try:
            yield mode
        finally:
            with self._lock:
                self._open.discard(connection)

    def _serve(self, client: socket.socket) -> None:
        with self._known(client) as mode:
            if mode == "pass":
                with socket.create_connection(self._target) as server, self._known(server):
                    back = threading.Thread(target=copy, args=(server, client), daemon=True)
                    back.start()
                    copy(client, server, self._count)
                    back.join()
                return
            read_request(client)
            self.faults += 1
            if mode == "500":
                client.sendall(ANSWER)
            else:
                client.recv(1)  # until the client gives up, or the mode changes


def copy(source: socket.socket, sink: socket.socket, count: Callable[[int], None] = lambda _: None) -> None:
    """Until one side ends; then both are cut, as a broken line would be. `count` hears of all that goes through."""
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
            count(len(data))
    except OSError:
        pass
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def read_request(client: socket.socket) -> None:
    """A request to its end, so that the answer is not lost in a reset; a body that waits for 100 is not asked for."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(1 << 16)
        if not part:
            return
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    if re.search(rb"(?i)^expect: *100-continue", head, re.MULTILINE):
        return
    length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
    missing = int(length[1]) - len(body) if length else 0
    while missing > 0 and (part := client.recv(min(missing, 1 << 16))):
        missing -= len(part)
