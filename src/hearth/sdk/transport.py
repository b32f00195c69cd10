"""Requests over blocking sockets; connections are kept for the next request."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from hearth.errors import TimedOut
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse, ResponseReader, encode_piece, encode_request

CONNECT_S = 5.0
READ_BYTES = 65_536
TLS_WAITS = {"SSLWantReadError": select.POLLIN, "SSLWantWriteError": select.POLLOUT}
"""What a secure connection waits for, by the names of ``ssl``'s errors: that module takes 10 ms to load."""
Value = TypeVar("Value")


class Incoming:
    """An answer whose head has come; iterate for its body, piece by piece."""

    def __init__(self, connection: socket.socket, reader: ResponseReader) -> None:
        self._connection = connection
        self.reader = reader

    def __iter__(self) -> Iterator[bytes]:
        while True:
            if data := self.reader.take():
                yield data
            if self.reader.complete:
                return
            receive(self._connection, self.reader)

    def duplex(self) -> Duplex:
        """Give the bare connection behind an answer that changes the protocol."""
        return Duplex(self._connection, self.reader.rest)

    def whole(self) -> HttpResponse:
        """Read the body to its end."""
        return HttpResponse(status=self.reader.status, headers=self.reader.headers, body=b"".join(self))


class Duplex:
    """A connection whose two directions have nothing to do with each other; one thread may send while another reads."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self._connection = connection
        self._rest = rest
        self._using = threading.Lock()
        self._sending = threading.Lock()
        connection.settimeout(0)  # both directions wait by themselves, each for its own time

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of it.

        Raises:
            ConnectionLost: the connection is gone, or the other side takes nothing.
        """
        view = memoryview(data)
        with self._sending:
            while view:
                view = view[self._attempt(partial(self._connection.send, view), select.POLLOUT, timeout_s) :]

    def receive(self, timeout_s: float) -> bytes:
        """Wait for bytes; none are the end.

        Raises:
            ConnectionLost: the connection is gone, or nothing came for so long.
        """
        rest, self._rest = self._rest, b""
        return rest or self._attempt(partial(self._connection.recv, READ_BYTES), select.POLLIN, timeout_s)

    @property
    def may_send(self) -> bool:
        """Whether a little can be sent without waiting."""
        poll = select.poll()
        try:
            poll.register(self._connection, select.POLLOUT)
            return bool(poll.poll(0))
        except (OSError, ValueError):
            return False

    def cut(self) -> None:
        """End both directions: whoever waits learns it at once."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _attempt(self, act: Callable[[], Value], wanted: int, timeout_s: float) -> Value:
        while True:
            try:
                with self._using:  # what encrypts is not made for two threads at once
                    return act()
            except BlockingIOError:
                awaited = wanted
            except OSError as error:
                awaited = TLS_WAITS.get(type(error).__name__, 0)
                if not awaited:
                    raise ConnectionLost(answered=True) from error
            poll = select.poll()
            try:
                poll.register(self._connection, awaited)
                if not poll.poll(1000 * timeout_s):
                    raise ConnectionLost(answered=True)
            except (OSError, ValueError) as error:
                raise ConnectionLost(answered=True) from error


class Transport:
    """Carries requests to one endpoint. Threads may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[socket.socket] = []

    def fetch(self, request: HttpRequest, body: Iterator[bytes] | None = None) -> HttpResponse:
        """Send a request and give its whole answer."""
        with self.open(request, body) as incoming:
            return incoming.whole()

    @contextlib.contextmanager
    def open(self, request: HttpRequest, body: Iterator[bytes] | None = None) -> Iterator[Incoming]:
        """Send a request and give its answer as it comes; leaving early closes the connection.

        Args:
            body: the pieces of a streamed body; they are asked for no more once an answer comes.

        Raises:
            Unavailable: nobody answers, or the connection broke.
            TimedOut: no byte came for ``timeout_s``.
        """
        connection, reader = self._begin(request, body)
        try:
            yield Incoming(connection, reader)
            if reader.complete and reader.keep_alive:
                self._idle.append(connection)
                return
        except BaseException:
            connection.close()
            raise
        connection.close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _begin(self, request: HttpRequest, body: Iterator[bytes] | None) -> tuple[socket.socket, ResponseReader]:
        if not request.streamed and (kept := self._kept()):
            try:
                return kept, self._send(kept, request)
            except ConnectionLost as error:
                if error.answered or not request.may_repeat:
                    raise
        fresh = self._dial()
        return fresh, self._send(fresh, request, body)

    def _send(
        self, connection: socket.socket, request: HttpRequest, body: Iterator[bytes] | None = None
    ) -> ResponseReader:
        reader = ResponseReader(bodiless=request.method == "HEAD")
        connection.settimeout(request.timeout_s)
        try:
            # A refusal may come before the whole body was taken: then the answer tells why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(encode_request(request, self.endpoint))
                if body is not None:
                    _send_body(connection, request, body)
            while not reader.head_complete:
                receive(connection, reader)
        except BaseException:
            connection.close()
            raise
        return reader

    def _kept(self) -> socket.socket | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_readable(connection):
                return connection
            connection.close()  # the daemon has closed it meanwhile

    def _dial(self) -> socket.socket:
        endpoint = self.endpoint
        try:
            if endpoint.socket_path is None:
                connection = socket.create_connection((endpoint.host, endpoint.port), CONNECT_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self._secured(connection)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(CONNECT_S)
                connection.connect(os.fspath(endpoint.socket_path))
            except OSError:
                connection.close()
                raise
        except OSError as error:
            raise endpoint.unreachable(error) from error
        return connection

    def _secured(self, connection: socket.socket) -> socket.socket:
        """Agree on how to encrypt, where that is asked for; the connection is closed when it fails."""
        try:
            context = self.endpoint.context
            return (
                connection if context is None else context.wrap_socket(connection, server_hostname=self.endpoint.host)
            )
        except BaseException:
            connection.close()
            raise


def _send_body(connection: socket.socket, request: HttpRequest, body: Iterator[bytes]) -> None:
    for piece in body:
        if _is_readable(connection):
            return  # an answer before the end is a refusal
        if piece:
            connection.sendall(encode_piece(request, piece))
    if end := encode_piece(request, b""):
        connection.sendall(end)


def _is_readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def receive(connection: socket.socket, reader: ResponseReader) -> None:
    """Wait for bytes and feed them."""
    try:
        data = connection.recv(READ_BYTES)
    except TimeoutError as error:
        raise TimedOut(
            "the daemon took too long to answer", details=f"nothing came for {connection.gettimeout()} s"
        ) from error
    except OSError as error:
        raise ConnectionLost(answered=reader.head_complete) from error
    reader.feed(data)
