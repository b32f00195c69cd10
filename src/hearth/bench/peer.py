"""The other end of a socket, as a process of its own: ``python -m hearth.bench.peer MODE [SIZE]``.

``echo`` and ``http`` answer on the socket that is their standard input; ``push`` listens on loopback, prints its port
and sends SIZE bytes to each caller. They do as little as possible: what they cost is the floor for others.
"""

from __future__ import annotations

import socket
import sys

CHUNK = bytes(1 << 18)
HTTP_REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n" + b'{"status":"ok"}'


def echo(connection: socket.socket) -> None:
    """Send back whatever comes."""
    while data := connection.recv(len(CHUNK)):
        connection.sendall(data)


def http(connection: socket.socket) -> None:
    """Answer every request head with the same reply."""
    head = b""
    while data := connection.recv(len(CHUNK)):
        head += data
        while b"\r\n\r\n" in head:
            head = head.partition(b"\r\n\r\n")[2]
            connection.sendall(HTTP_REPLY)


def push(size: int) -> None:
    """Send ``size`` bytes to everybody who connects, until ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            with connection:
                _send(connection, size)


def _send(connection: socket.socket, size: int) -> None:
    try:
        for start in range(0, size, len(CHUNK)):
            connection.sendall(memoryview(CHUNK)[: size - start])
    except OSError:
        return  # the caller has left: the next one may stay


def main() -> None:
    """Be the peer that the command line names."""
    mode, *rest = sys.argv[1:]
    if mode == "push":
        push(int(rest[0]))
    with socket.socket(fileno=0) as connection:
        (echo if mode == "echo" else http)(connection)


if __name__ == "__main__":
    main()
