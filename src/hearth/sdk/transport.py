"""Requests over blocking sockets; connections are kept for the next request."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator

from hearth.errors import TimedOut
from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, HttpResponse, ResponseReader, encode_request

CONNECT_S = 5.0
READ_BYTES = 65_536


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

    def whole(self) -> HttpResponse:
        """Read the body to its end."""
        return HttpResponse(status=self.reader.status, headers=self.reader.headers, body=b"".join(self))


class Transport:
    """Carries requests to one endpoint. Threads may share it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._idle: list[socket.socket] = []

    def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request and give its whole answer."""
        with self.open(request) as incoming:
            return incoming.whole()

    @contextlib.contextmanager
    def open(self, request: HttpRequest) -> Iterator[Incoming]:
        """Send a request and give its answer as it comes; leaving early closes the connection.

        Raises:
            Unavailable: nobody answers, or the connection broke.
            TimedOut: no byte came for ``timeout_s``.
        """
        connection, reader = self._begin(request)
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

    def _begin(self, request: HttpRequest) -> tuple[socket.socket, ResponseReader]:
        if kept := self._kept():
            try:
                return kept, self._send(kept, request)
            except ConnectionLost as error:
                if error.answered or not request.may_repeat:
                    raise
        fresh = self._dial()
        return fresh, self._send(fresh, request)

    def _send(self, connection: socket.socket, request: HttpRequest) -> ResponseReader:
        reader = ResponseReader()
        connection.settimeout(request.timeout_s)
        try:
            # A refusal may come before the whole body was taken: then the answer tells why.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(encode_request(request, self.endpoint))
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
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            if not poll.poll(0):
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
