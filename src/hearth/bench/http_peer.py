"""A small HTTP server as a process of its own: ``python -m hearth.bench.http_peer``; ``GET /N`` is answered by N bytes.

It listens on loopback, prints its port, and has a thread for each connection, which it keeps.
"""

from __future__ import annotations

import socket
import sys
import threading

CHUNK = bytes(1 << 18)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n"


def serve(connection: socket.socket) -> None:
    """Answer every request on a connection."""
    received = b""
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := connection.recv(65_536):
                received += data
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    answer(connection, int(head.split(b" ", 2)[1].rpartition(b"/")[2]))
        except OSError:
            return  # the caller has left


def answer(connection: socket.socket, size: int) -> None:
    """Send a head and so many bytes; a small answer in one piece."""
    head = HEAD % size
    first = min(size, len(CHUNK))
    connection.sendall(head + CHUNK[:first])
    for start in range(first, size, len(CHUNK)):
        connection.sendall(memoryview(CHUNK)[: size - start])


def main() -> None:
    """Serve until ended."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
