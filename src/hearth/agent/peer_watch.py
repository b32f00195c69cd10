"""Ends TCP connections whose peer has vanished while something was under way to it.

An idle connection is the kernel's to check, by keepalive. With data on its way the kernel would try for a quarter of
an hour, and its TCP_USER_TIMEOUT takes a live peer that reads nothing for a vanished one (net/ipv4/tcp_timer.c,
``tcp_probe_timer``), which back-pressure must not. So this looks at what the kernel counts: tries without an answer.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading

_TCP_INFO = struct.Struct("=2x2B52xI")
"""From struct tcp_info (linux/tcp.h): tcpi_retransmits, tcpi_probes, and tcpi_last_ack_recv in milliseconds."""
_UNANSWERED = 2
"""Tries in a row: a single one may just have been sent to a peer that reads nothing, whose probes are minutes apart."""
_LOOKS = 4


class PeerWatch:
    """Looks after the connections of one server. The thread starts with the first and sleeps while there is none."""

    def __init__(self, lost_s: float) -> None:
        """``lost_s`` is how long a peer may leave everything unanswered."""
        self._lost_s = lost_s
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._watched: set[socket.socket] = set()
        self._is_running = False

    def add(self, sock: socket.socket) -> None:
        """Look after a TCP connection; elsewhere than on Linux the kernel tells other things, and it alone decides."""
        if sys.platform != "linux":
            return
        with self._lock:
            self._watched.add(sock)
            self._some.set()
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._work, name="peer-watch", daemon=True).start()

    def remove(self, sock: socket.socket) -> None:
        """Stop looking; call it before the socket is closed."""
        with self._lock:
            self._watched.discard(sock)
            if not self._watched:
                self._some.clear()

    def _work(self) -> None:
        pause = threading.Event()
        while True:
            self._some.wait()
            pause.wait(self._lost_s / _LOOKS)
            with self._lock:
                for sock in self._watched:
                    if has_vanished(sock, self._lost_s):
                        with contextlib.suppress(OSError):
                            sock.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it


def has_vanished(sock: socket.socket, lost_s: float) -> bool:
    """Tell whether a connected TCP peer has left several tries in a row unanswered, for ``lost_s`` or longer."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return False
    retransmits, probes, silent_ms = _TCP_INFO.unpack(info)
    return bool(retransmits + probes >= _UNANSWERED and silent_ms >= lost_s * 1000)
