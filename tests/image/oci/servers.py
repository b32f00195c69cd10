"""Real registries on the loopback, a server of tokens, and a line to them that can be cut."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from tests.ports import free_port

READY_S = 60.0
SALT = "$2y$05$" + "abcdefghijklmnopqrstuu"
CRYPT = "print crypt($ARGV[0], $ARGV[1])"


@contextlib.contextmanager
def registry(directory: Path, *, auth: Mapping[str, Any] | None = None) -> Iterator[str]:
    """Run Debian's registry; gives its HOST:PORT."""
    port = free_port()
    configuration = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of this test"},
        **({} if auth is None else {"auth": dict(auth)}),
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "config.yml"
    path.write_text(json.dumps(configuration))  # YAML has JSON in it
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            wait_for(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"the registry does not listen; its status: {process.poll()}")


def htpasswd(directory: Path, user: str, password: str) -> Mapping[str, Any]:
    """Give the configuration of a registry that one user may use."""
    made = subprocess.run(["perl", "-e", CRYPT, password, SALT], check=True, capture_output=True, text=True).stdout
    path = directory / "htpasswd"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{user}:{made}\n")
    return {"htpasswd": {"realm": "tests", "path": str(path)}}


@dataclass(kw_only=True)
class Tokens:
    """A server of tokens: who says the password gets what is asked for, everybody else nothing."""

    user: str
    password: str
    url: str = ""
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    @cached_property
    def certificate(self) -> x509.Certificate:
        # one for all tokens: the registry takes none of another, even of the same key
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def token(self, service: str, scope: str, actions: list[str]) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        now = int(time.time())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        kind, _, rest = scope.partition(":")
        name = rest.rpartition(":")[0]
        claims = {
            "iss": "tokens",
            "sub": self.user,
            "aud": service,
            "exp": now + 300,
            "nbf": now - 60,
            "iat": now - 60,
            "jti": uuid.uuid4().hex,
            "access": [{"type": kind, "name": name, "actions": actions}],
        }
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_encoded(self.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def configuration(self, directory: Path) -> Mapping[str, Any]:
        bundle = directory / "tokens.pem"
        directory.mkdir(parents=True, exist_ok=True)
        bundle.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        return {
            "token": {"realm": self.url, "service": "tests", "issuer": "tokens", "rootcertbundle": str(bundle)},
        }

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        tokens = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = parse_qs(urlsplit(self.path).query)
                tokens.asked.append(asked)
                proof = base64.b64encode(f"{tokens.user}:{tokens.password}".encode()).decode()
                if self.headers.get("Authorization") != f"Basic {proof}":
                    self.send_error(401)
                    return
                token = tokens.token(asked["service"][0], asked["scope"][0], ["pull"])
                body = json.dumps({"token": token}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Say nothing."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}/token"
            try:
                yield
            finally:
                server.shutdown()
                thread.join(30)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Line:
    """A way to a registry that breaks each connection after so many bytes of its answers; 0 never."""

    def __init__(self, target: str, *, after: int, at_most: int) -> None:
        host, _, port = target.partition(":")
        self._target = (host, int(port))
        self._after = after
        self.cuts_left = at_most
        self.carried = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> Line:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(30)

    def _start(self, work: Any, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target, 30)
            self._open += [client, server]
            self._start(self._carry, client, server, False)
            self._start(self._carry, server, client, True)

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                passed += len(data)
                if is_answer:
                    self.carried += len(data)
                    if self._after and passed > self._after and self.cuts_left > 0:
                        self.cuts_left -= 1
                        break
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
