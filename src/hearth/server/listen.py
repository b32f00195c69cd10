"""The daemon's listening sockets: a private Unix socket that replaces a dead daemon's, and TCP when told to."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hearth.errors import Conflict, InvalidInput, Unavailable

BACKLOG = 2048
CONNECT_TIMEOUT_S = 2.0


@contextlib.contextmanager
def unix_listener(path: Path) -> Iterator[socket.socket]:
    """Listen on a Unix socket of mode 0600; the path appears when connections are taken and goes with the context.

    Raises:
        Conflict: somebody listens there already.
    """
    if _is_alive(path):
        raise Conflict(
            "another daemon is listening",
            details=f"the socket {path} answers",
            resolution="stop it, or choose another HEARTH_DATA",
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(os.fspath(fresh))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        made = fresh.lstat()
        fresh.rename(path)
        yield listener
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(made, path.lstat()):
                path.unlink()
    finally:
        listener.close()
        fresh.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except TimeoutError:
            return True
        return True


def parse_address(text: str, *, allow_remote: bool) -> tuple[str, int]:
    """Read ``host:port`` (``[host]:port`` for IPv6; port 0 lets the system choose).

    Raises:
        InvalidInput: it is none, or it is open to the network and ``allow_remote`` was not said.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if ":" in host and not bracketed:
        raise InvalidInput(
            "invalid --listen",
            details=f"in {text!r} the address and the port cannot be told apart",
            resolution="put the address in brackets: [::1]:8080",
            field="listen",
        )
    host = host[1:-1] if bracketed else host
    host = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if (
        not colon
        or address is None
        or (address.version == 6) is not bracketed
        or not port.isdecimal()
        or int(port) > 65535
    ):
        raise InvalidInput(
            "invalid --listen",
            details=f"{text!r} is not an address and a port",
            resolution="write it as 127.0.0.1:8080 or [::1]:8080",
            field="listen",
        )
    if not address.is_loopback and not allow_remote:
        raise InvalidInput(
            "refusing to listen on the network",
            details=f"{text} can be reached from other machines and the connection is not encrypted",
            resolution="say --tls-cert and --tls-key, listen on 127.0.0.1, or say --allow-remote if you mean it",
            field="listen",
        )
    return host, int(port)


@contextlib.contextmanager
def tcp_listener(host: str, port: int) -> Iterator[socket.socket]:
    """Listen on an address.

    Raises:
        Unavailable: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise Unavailable(
                "cannot listen",
                details=f"{host}:{port}: {error.strerror}",
                resolution="choose another address with --listen",
            ) from error
        listener.listen(BACKLOG)
        yield listener


def spoken_address(listener: socket.socket, scheme: str = "http") -> str:
    """Give the URL of a TCP listener, with the port it really has."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
