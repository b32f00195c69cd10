"""TLS of the API's listener, and users who show a certificate instead of a token."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.network import address_of, ask_over_tcp, bearer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from hearth.errors import Unavailable
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client
from hearth.server.middleware.credentials import names_of

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
END_S = 60.0
PATH = "/api/v1/users/me"


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Signs certificates into a directory."""

    root: Path

    @property
    def certificate(self) -> Path:
        return self.root / "ca.pem"

    def begin(self) -> None:
        self._openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"),
        )

    def sign(self, name: str, common_name: str, alternative: str | None = None) -> tuple[Path, Path]:
        """Give certificate and key of ``common_name``."""
        extension = self.root / f"{name}.cnf"
        extension.write_text("" if alternative is None else f"subjectAltName={alternative}\n")
        self._openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={common_name}"),
            *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
        )
        self._openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", extension.name, "-out", f"{name}.pem"),
        )
        return self.root / f"{name}.pem", self.root / f"{name}.key"

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], cwd=self.root, capture_output=True, check=True, timeout=END_S)


@dataclass(frozen=True, kw_only=True)
class Secure:
    """A daemon behind TLS that takes client certificates."""

    daemon: RunningDaemon
    address: tuple[str, int]
    authority: Authority

    def context(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=self.authority.certificate)
        if client is not None:
            made.load_cert_chain(*client)
        return made

    def ask(
        self, client: tuple[Path, Path] | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str]]:
        status, _, answer = ask_over_tcp(self.address, "GET", PATH, headers=headers, context=self.context(client))
        return status, answer


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    authority = Authority(root=tmp_path_factory.mktemp("ca"))
    authority.begin()
    certificate, key = authority.sign("server", "localhost", "IP:127.0.0.1")
    with data_directory() as data:
        publish_images(data)
        words = ("--tls-cert", str(certificate), "--tls-key", str(key), "--client-ca", str(authority.certificate))
        with running_daemon(data, "--listen", "127.0.0.1:0", *words) as daemon:
            with daemon.client() as client:
                client.users.create("ada")
                client.users.create("bob")
            yield Secure(daemon=daemon, address=address_of(daemon), authority=authority)


def test_the_api_is_served_behind_tls_and_by_its_socket_without(secure: Secure) -> None:
    assert secure.daemon.log()[-1] is not None
    assert secure.ask(headers=bearer(secure.daemon.token))[0] == 200
    assert secure.ask()[0] == 401
    with secure.daemon.client() as client:
        assert client.users.get().name == "admin"
    (entry,) = [entry for entry in secure.daemon.log() if entry["event"] == "listening"]
    assert entry["addresses"][0].startswith("https://127.0.0.1:")


def test_who_speaks_without_tls_is_not_answered(secure: Secure) -> None:
    with pytest.raises(OSError), contextlib.closing(socket.create_connection(secure.address, timeout=END_S)) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        if not plain.recv(64).startswith(b"HTTP/"):
            raise OSError("closed without an answer")


@pytest.mark.parametrize(
    ("common_name", "alternative", "user"),
    [("ada", None, "ada"), ("somebody", "DNS:bob", "bob"), ("admin", None, "admin"), ("ada", "DNS:ada", "ada")],
)
def test_a_certificate_is_a_users_by_its_name(
    secure: Secure, common_name: str, alternative: str | None, user: str
) -> None:
    client = secure.authority.sign(f"{common_name}-{user}", common_name, alternative)
    status, view = secure.ask(client)
    assert (status, view["name"]) == (200, user)


@pytest.mark.parametrize(("common_name", "alternative"), [("nobody", None), ("ada", "DNS:bob"), ("user", "DNS:x")])
def test_a_certificate_of_nobody_or_of_two_is_refused(
    secure: Secure, common_name: str, alternative: str | None
) -> None:
    client = secure.authority.sign(f"no-{common_name}", common_name, alternative)
    status, problem = secure.ask(client)
    assert (status, problem["code"]) == (401, "unauthenticated")


def test_a_token_goes_before_a_certificate(secure: Secure) -> None:
    client = secure.authority.sign("token", "ada")
    assert secure.ask(client, bearer(secure.daemon.token))[1]["name"] == "admin"
    assert secure.ask(client, bearer(f"hk_{'0' * 64}"))[0] == 401


def test_a_certificate_of_another_authority_ends_the_connection(secure: Secure, tmp_path: Path) -> None:
    other = Authority(root=tmp_path)
    other.begin()
    with pytest.raises(OSError):
        secure.ask(other.sign("ada", "ada"))


def test_names_come_from_subject_and_alternatives_once_each() -> None:
    certificate = {
        "subject": ((("organizationName", "x"),), (("commonName", "ada"),)),
        "subjectAltName": (("DNS", "ada"), ("email", "a@b"), ("URI", "spiffe://x/ada"), ("IP Address", "10.0.0.1")),
    }
    assert names_of(certificate) == ["ada", "a@b", "spiffe://x/ada"]
    assert names_of({}) == []


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--tls-cert", "c.pem"), "--tls-key"),
        (("--tls-key", "k.pem"), "--tls-cert"),
        (("--client-ca", "ca.pem", "--listen", "127.0.0.1:0"), "--tls-cert"),
        (("--tls-cert", "c.pem", "--tls-key", "k.pem"), "--listen"),
        (("--tls-cert", "/no/c.pem", "--tls-key", "/no/k.pem", "--listen", "127.0.0.1:0"), "/no/c.pem"),
    ],
)
def test_options_that_make_no_sense_are_told(words: tuple[str, ...], field: str) -> None:
    with data_directory() as data:
        command = [sys.executable, "-m", "hearth.server", "serve", "--data", str(data.root), "--engine", "local"]
        ran = subprocess.run(
            [*command, "--uplink", "none", *words], capture_output=True, text=True, timeout=END_S, check=False
        )
    assert ran.returncode == 1
    assert field in ran.stderr


async def test_both_clients_and_the_command_line_speak_it(secure: Secure, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"https://127.0.0.1:{secure.address[1]}"
    certificate, key = secure.authority.sign("sdk", "bob")
    monkeypatch.setenv("HEARTH_CA_FILE", str(secure.authority.certificate))
    with Client(url, secure.daemon.token) as client:
        assert [client.users.get().name for _ in range(3)] == ["admin"] * 3
    monkeypatch.setenv("HEARTH_CERT_FILE", str(certificate))
    monkeypatch.setenv("HEARTH_KEY_FILE", str(key))
    with Client(url) as client:
        assert client.users.get().name == "bob"
    async with AsyncClient(url) as asynchronous:
        assert [(await asynchronous.users.get()).name for _ in range(3)] == ["bob"] * 3
    environment = {name: value for name, value in os.environ.items() if name.startswith("HEARTH_")}
    ran = run_cli({**secure.daemon.environment, **environment, "HEARTH_URL": url}, "user", "inspect", "--json")
    assert b'"bob"' in ran.stdout


def test_a_daemon_whose_certificate_nobody_vouches_for_is_not_talked_to(secure: Secure) -> None:
    url = f"https://127.0.0.1:{secure.address[1]}"
    with Client(url, secure.daemon.token) as client, pytest.raises(Unavailable, match="certificate"):
        client.users.get()


def test_another_sites_page_opens_no_terminal_with_a_certificate_that_its_visitor_shows(secure: Secure) -> None:
    shown = secure.context(secure.authority.sign("browser", "admin"))
    own = f"https://{secure.address[0]}:{secure.address[1]}"
    with secure.daemon.client() as client, client.create() as sandbox:
        target = f"wss://{secure.address[0]}:{secure.address[1]}/api/v1/sandboxes/{sandbox.id}/ws?cmd=true&new=true"

        def status(origin: str | None, query: str = "", context: ssl.SSLContext = shown) -> int:
            try:
                with connect(
                    target + query, ssl=context, origin=Origin(origin) if origin else None, proxy=None
                ) as socket:
                    assert json.loads(socket.recv(timeout=END_S))["type"] == "session"
            except InvalidStatus as error:
                return error.response.status_code
            return 101

        assert (status(None), status(own)) == (101, 101)
        foreign = ("https://elsewhere.example.org", own.replace("https", "http"), f"{own}0", "null")
        assert {status(each) for each in foreign} == {403}
        assert status(foreign[0], f"&token={secure.daemon.token}") == 101
        assert status(foreign[0], f"&token={secure.daemon.token}", secure.context()) == 101
