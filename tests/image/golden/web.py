"""A web server on loopback that keeps its objects in memory and fails as it is told: a real server, real sockets."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

HELD_S = 60.0
LONG_AGO = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass
class Web:
    """What it serves and how. ``cut_after`` bytes in all it hangs up, once; each path in ``redirects`` leads on."""

    objects: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    has_ranges: bool = True
    has_etags: bool = True
    keeps_connections: bool = True
    pause_s: float = 0.0
    """After each piece, as on a slow line."""
    cut_after: int | None = None
    cut_each: int | None = None
    """Bytes of each answer after which it hangs up."""
    change_after: int | None = None
    surplus: bytes = b""
    """Comes behind every range."""
    sent_bytes: int = 0
    asked: list[str] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    flows: threading.Event = field(default_factory=threading.Event)
    """While it is not set bodies wait."""

    def __post_init__(self) -> None:
        self.flows.set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def wait_until_asked(self, path: str, times: int) -> None:
        """Wait until that many requests for a path have come."""
        deadline_s = time.monotonic() + HELD_S
        while self.asked.count(path) < times:
            assert time.monotonic() < deadline_s, f"{path} was asked for {self.asked.count(path)} times"
            time.sleep(0.005)

    def etag(self, path: str) -> str:
        return self.etags.get(path) or f'"{hashlib.sha256(self.objects[path]).hexdigest()[:16]}"'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def web(self) -> Web:
        return cast(Server, self.server).web

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.web.asked.append(path)
        if failures := self.web.statuses.get(path):
            self.refuse(failures.pop(0))
            return
        if path in self.web.redirects:
            self.refuse(302, location=self.web.redirects[path])
            return
        data = self.web.objects.get(path)
        if data is None:
            self.refuse(404)
            return
        if self.headers.get("if-match", self.web.etag(path)) != self.web.etag(path):
            self.refuse(412)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if wanted and self.web.has_ranges:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            surplus = self.web.surplus
            self.send_response(206)
            self.send_header("content-range", f"bytes {start}-{end - 1}/{len(data)}")
        else:
            start, end, surplus = 0, len(data), b""
            self.send_response(200)
        if self.web.has_etags:
            self.send_header("etag", self.web.etag(path))
        self.send_header("content-length", str(end - start + len(surplus)))
        self.send_header("last-modified", LONG_AGO)
        if not self.web.keeps_connections:
            self.send_header("connection", "close")
        self.end_headers()
        if self.command == "GET":
            self.send(path, data[start:end] + surplus)

    def send(self, path: str, body: bytes) -> None:
        """Send in pieces; hang up, or replace the object, when it is time to."""
        web = self.web
        for position in range(0, len(body), 65536):
            piece = body[position : position + 65536]
            web.flows.wait(HELD_S)
            with web.lock:
                if web.cut_each is not None and position + len(piece) > web.cut_each:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if web.cut_after is not None and web.sent_bytes + len(piece) > web.cut_after:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                web.sent_bytes += len(piece)
                if web.change_after is not None and web.sent_bytes > web.change_after:
                    web.change_after = None
                    web.objects[path] = bytes(reversed(web.objects[path]))
            self.wfile.write(piece)
            if web.pause_s:
                time.sleep(web.pause_s)

    def refuse(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    daemon_threads = False  # waited for at the end
    web: Web

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""

    def process_request(self, request: object, client_address: object) -> None:
        cast(socket.socket, request).settimeout(5)
        super().process_request(cast(socket.socket, request), client_address)


@contextlib.contextmanager
def web_server(address: str = "127.0.0.1") -> Iterator[Web]:
    """Serve on a port of its own until the end."""
    server = Server((address, 0), Handler)
    server.web = Web(port=server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
