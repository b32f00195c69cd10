"""Listening sockets and the threads that serve them.

Every idle thread waits in ``accept`` itself, so that a connection costs one wake-up and no hand-over. There is always
one more thread waiting, and never more than the limit and one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import threading
from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.options import Address
from hearth.agent.patience import Patience
from hearth.agent.peer_watch import PeerWatch
from hearth.agent.seal import say
from hearth.wire import frames

CONTROL_CONNECTIONS = 50
FORWARD_CONNECTIONS = 512
_LIMIT_TEXT = "connection limit exceeded"
_BACKLOG = 128
_SPARE_THREADS = 4
_KEEPALIVE_SHARES = (("TCP_KEEPIDLE", 2), ("TCP_KEEPINTVL", 6))
"""The silence before the first of three probes, and between two, as parts of the whole time a peer may be silent."""
_KEEPALIVE_PROBES = 3


def listen(address: Address) -> socket.socket:
    """Bind and listen. A Unix socket is for its owner alone; a stale one of ours is replaced.

    Raises:
        OSError: the address is in use or not ours.
    """
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    if isinstance(address.address, str):
        _remove_stale(address.address)
        before = os.umask(0o077)
        try:
            sock.bind(address.address)
        finally:
            os.umask(before)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address.address)
    sock.listen(_BACKLOG)
    return sock


class Server:
    """Serves one listening socket with at most ``limit`` connections at a time."""

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        limit: int,
        serve: Callable[[Connection], None],
        *,
        patience: Patience,
        from_outside: bool = False,
    ) -> None:
        """``from_outside`` sends this system's own processes away, so that they cannot use up the connections."""
        self._name = name
        self._socket = sock
        if sock.family != socket.AF_UNIX:
            prepare_for_peers(sock, patience.peer_lost_s)
        self._limit = limit
        self._serve = serve
        self._from_outside = from_outside
        self._patience = patience
        self._peers = PeerWatch(patience.peer_lost_s)
        self._lock = threading.Lock()
        self._active = 0
        self._waiting = 0
        self._started = 0

    def start(self) -> None:
        """Begin to accept."""
        with self._lock:
            self._add_thread()

    def _add_thread(self) -> None:
        self._waiting += 1
        self._started += 1
        threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                sock, peer = self._socket.accept()
            except OSError as error:
                say(f"hearth: accept on {self._name}: {error}")
                threading.Event().wait(0.1)  # out of descriptors: let other connections end
                continue
            if self._from_outside and _is_own(sock, peer):
                sock.close()
                continue
            with self._lock:
                self._waiting -= 1
                self._active += 1
                full = self._active > self._limit
                if not self._waiting:
                    self._add_thread()
            try:
                self._handle(sock, full)
            finally:
                with self._lock:
                    self._active -= 1
                    stays = self._waiting < _SPARE_THREADS
                    self._waiting += stays
            if not stays:
                return

    def _handle(self, sock: socket.socket, full: bool) -> None:
        if full:
            with contextlib.suppress(OSError):
                sock.send(frames.encode_error(_LIMIT_TEXT), socket.MSG_DONTWAIT)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16, socket.MSG_DONTWAIT)
            sock.close()
            return
        connection = Connection(sock)
        if connection.is_tcp:
            self._peers.add(sock)
        try:
            self._serve(connection)
        finally:
            self._peers.remove(sock)
            connection.close()


def prepare_for_peers(sock: socket.socket, peer_lost_s: float) -> None:
    """Tell a listening TCP socket once what its connections inherit (tcp(7)): each would pay for five calls itself.

    No waiting for more to send, and a kernel that notices where it can be told how soon a peer that vanished.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPCNT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
    for name, share in _KEEPALIVE_SHARES:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), max(1, int(peer_lost_s / share)))


def _is_own(sock: socket.socket, peer: tuple[str, int]) -> bool:
    """Tell a peer on this system: its address is the one it dialled, or a loopback's, and no other is its to use."""
    try:
        own = sock.getsockname()[0]
    except OSError:
        return False  # gone already
    return bool(peer[0] == own or peer[0].startswith("127."))


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
