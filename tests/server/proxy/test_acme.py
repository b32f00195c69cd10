"""Certificates of public names, from a real authority: ordered, used, renewed; failures told and not repeated."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from tests.ports import free_ports
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.proxy.authority import MISSING, Authority, authority
from tests.server.proxy.stage import answering, serving, sized
from tests.server.proxy.test_public import public_port

from hearth.config import DataDirectory
from hearth.sdk.client import Client
from hearth.server.proxy.acme.files import MARK, CertificateFiles, Dates, read_dates

ZONE = "boxes.example"
WAIT_S = 120.0
pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} is not installed; 'make develop' installs it"),
]


@dataclass(frozen=True)
class House:
    """A daemon that orders certificates."""

    daemon: RunningDaemon
    client: Client

    @property
    def port(self) -> int:
        return public_port(self.daemon)

    @property
    def files(self) -> CertificateFiles:
        return CertificateFiles(self.daemon.data.root / "certificates")

    def shake_hands(self, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
        connection = socket.create_connection(("127.0.0.1", self.port), 60)
        try:
            return context.wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def visit(self, context: ssl.SSLContext, host: str, path: str = "/") -> tuple[int, bytes]:
        """Ask as a browser does that believes the authority."""
        with self.shake_hands(context, host) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, answer.read()

    def wait_for_renewal(self, name: str) -> Dates:
        """Wait until a certificate was renewed and is used; gives its dates."""
        deadline = time.monotonic() + WAIT_S
        while not (dates := read_dates(self.files.path(name))).is_renewal:
            assert time.monotonic() < deadline, "it was not renewed"
            time.sleep(0.1)
        expected = {"name": name, "expires_at": dates.not_after.isoformat()}
        while not any(expected.items() <= entry.items() for entry in self.daemon.log()):
            assert time.monotonic() < deadline, "the new one is not used"
            time.sleep(0.1)
        return dates

    def wait_for(self, alias: str, state: str) -> dict[str, str]:
        """Wait until an alias's certificate is in a state; gives what is told of it."""
        deadline = time.monotonic() + WAIT_S
        while True:
            (found,) = [each for each in self.client.ports.every_published() if each.alias == alias]
            assert found.certificate is not None
            told: dict[str, str] = msgspec.to_builtins(found.certificate)
            if told["state"] == state:
                return told
            assert time.monotonic() < deadline, told
            time.sleep(0.1)


@contextlib.contextmanager
def opened(data: DataDirectory, *words: str) -> Iterator[House]:
    listen = ["--public-listen", "127.0.0.1:0", "--public-zone", ZONE]
    with running_daemon(data, *listen, *words) as daemon, daemon.client() as client:
        yield House(daemon, client)


def words_for(made: Authority, *others: str) -> list[str]:
    return ["--public-acme-directory", made.directory, "--public-acme-ca", str(made.ca_file), *others]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rewrite_dates(path: Path, **changes: object) -> None:
    """Change what a certificate's file says of its dates."""
    line, _, rest = path.read_bytes().partition(b"\n")
    dates = msgspec.structs.replace(msgspec.json.decode(line[len(MARK) :], type=Dates), **changes)
    path.write_bytes(MARK + msgspec.json.encode(dates) + b"\n" + rest)


def test_each_published_name_gets_a_certificate_and_a_restart_keeps_and_renews_them(tmp_path: Path) -> None:
    port, http_port = free_ports(2)
    with data_directory() as data, authority(tmp_path, port=port, http_port=http_port) as made:
        publish_images(data)
        words = words_for(made, "--public-http", f"127.0.0.1:{http_port}", "--public-acme-email", "ops@boxes.example")
        roots = made.roots()
        with opened(data, *words) as house, serving(answering(sized(b"hello"))) as server:
            house.client.create(name="web")
            assert not house.files.account_key.exists(), "nothing is ordered until something is published"
            published = run_cli(house.daemon.environment, "publish", "web", "-p", str(server.port))
            assert published.stdout.decode().strip() == f"https://web.{ZONE}:{house.port}/"
            assert b"being ordered" in published.stderr
            house.wait_for("web", "ready")
            assert house.visit(roots, f"web.{ZONE}") == (200, b"hello")
            for strange in (f"none.{ZONE}", "web.elsewhere.example", ZONE):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    house.shake_hands(roots, strange)
            check_port_80(http_port, house.port)
            check_files(house)
            first = house.files.path(f"web.{ZONE}").read_bytes()
            listed = run_cli(house.daemon.environment, "publish", "--list").stdout.decode()
            assert f"until {read_dates(house.files.path(f'web.{ZONE}')).not_after:%Y-%m-%d}" in listed
            # Sandboxes are destroyed at the end of a daemon here: the file alone shall outlive it.
        assert house.files.path(f"web.{ZONE}").read_bytes() == first

        soon = datetime.now(UTC) + timedelta(days=2)
        rewrite_dates(house.files.path(f"web.{ZONE}"), not_after=soon, not_before=soon - timedelta(days=90))
        with opened(data, *words) as house, serving(answering(sized(b"again"))) as server:
            house.client.create(name="web")
            house.client.ports.publish("web", server.port)
            assert house.visit(roots, f"web.{ZONE}") == (200, b"again"), "the old one serves while the new is ordered"
            renewed = house.wait_for_renewal(f"web.{ZONE}")
            assert renewed.not_after > soon
            assert house.files.path(f"web.{ZONE}").read_bytes() != first
            with house.shake_hands(roots, f"web.{ZONE}") as connection:
                served = connection.getpeercert()
            assert served is not None
            assert ssl.cert_time_to_seconds(str(served["notAfter"])) == int(renewed.not_after.timestamp())


def check_port_80(http_port: int, https_port: int) -> None:
    """Plain HTTP leads to https for names of the zone, and nowhere for all others."""
    for host, path, expected in [
        (f"web.{ZONE}", "/a%20b?c=d", (308, f"https://web.{ZONE}:{https_port}/a%20b?c=d")),
        (f"WEB.{ZONE}.:80", "//evil.example/", (308, f"https://web.{ZONE}:{https_port}//evil.example/")),
        ("evil.example", "/", (404, None)),
        (ZONE, "/", (404, None)),
        (f"a.b.{ZONE}", "/", (404, None)),
        (f"web.{ZONE}", "/.well-known/acme-challenge/..%2faccount.key", (308, None)),
        ("evil.example", "/.well-known/acme-challenge/../account.key", (404, None)),
        ("evil.example", "/.well-known/acme-challenge/nothing", (404, None)),
    ]:
        connection = http.client.HTTPConnection("127.0.0.1", http_port, timeout=60)
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        assert b"KEY" not in body
        assert answer.status == expected[0], (host, path)
        if expected[1] is not None:
            assert answer.getheader("location") == expected[1]


def check_files(house: House) -> None:
    """Keys are their owner's alone, and in no log."""
    files = house.files
    assert mode_of(files.root) == mode_of(files.challenges) == 0o700
    kept = [path for path in files.root.iterdir() if path.is_file()]
    assert {path.name for path in kept} == {"account.key", f"web.{ZONE}.pem", "failures.json"}
    assert all(mode_of(path) == 0o600 for path in kept)
    assert list(files.challenges.iterdir()) == [], "a proof is taken away again"
    assert "PRIVATE" not in house.daemon.log_file.read_text()


def test_an_order_that_fails_is_told_and_not_repeated_at_once(tmp_path: Path) -> None:
    port, http_port, closed = free_ports(3)
    with data_directory() as data, authority(tmp_path, port=port, http_port=closed) as made:
        publish_images(data)
        words = words_for(made, "--public-http", f"127.0.0.1:{http_port}")
        with opened(data, *words) as house:
            house.client.create(name="web")
            house.client.ports.publish("web", 3000)
            told = house.wait_for("web", "failed")
            assert "refused" in told["error"].lower()
            assert datetime.fromisoformat(told["retry_at"]) > datetime.now(UTC) + timedelta(minutes=10)
            listed = json.loads(run_cli(house.daemon.environment, "publish", "web", "--json").stdout)
            assert listed[0]["certificate"]["state"] == "failed"
            # Taken away and published again: the authority hears nothing of it.
            house.client.ports.unpublish("web", 3000)
            house.client.ports.publish("web", 3000)
            house.client.ports.publish("web", 3001, alias="other")
            house.wait_for("other", "failed")
            assert house.wait_for("web", "failed") == told
            ordered = [entry["name"] for entry in house.daemon.log() if entry["event"] == "certificate ordered"]
            assert ordered == [f"web.{ZONE}", f"other.{ZONE}"]
        assert set(house.files.load_failures()) == {f"web.{ZONE}", f"other.{ZONE}"}, "a restart does not forget"


HOOK = """#!{python}
import sys, urllib.request, json
action, name, value = sys.argv[1:]
with open({seen!r}, "a") as seen:
    seen.write(f"{{action}} {{name}}\\n")
path, body = ("set-txt", {{"host": name, "value": value}}) if action == "present" else ("clear-txt", {{"host": name}})
urllib.request.urlopen(urllib.request.Request({base!r} + path, json.dumps(body).encode(), method="POST")).close()
"""


def test_with_a_hook_for_dns_one_certificate_holds_for_the_whole_zone(tmp_path: Path) -> None:
    port, closed = free_ports(2)
    with data_directory() as data, authority(tmp_path, port=port, http_port=closed) as made:
        publish_images(data)
        hook, seen = tmp_path / "hook", tmp_path / "seen"
        hook.write_text(HOOK.format(python=sys.executable, seen=str(seen), base=f"{made.dns_management}/"))
        hook.chmod(0o755)
        with (
            opened(data, *words_for(made, "--public-acme-dns-hook", str(hook))) as house,
            serving(answering(sized(b"hello"))) as server,
        ):
            house.client.create(name="web")
            house.client.ports.publish("web", server.port)
            house.client.ports.publish("web", server.port + 1 if server.port < 65_535 else 1, alias="other")
            house.wait_for("web", "ready")
            house.wait_for("other", "ready")
            roots = made.roots()
            assert house.visit(roots, f"web.{ZONE}") == (200, b"hello")
            assert house.visit(roots, f"none.{ZONE}")[0] == 404
            assert [path.name for path in house.files.root.glob("*.pem")] == [f"_.{ZONE}.pem"]
            assert seen.read_text().splitlines() == [
                f"{action} _acme-challenge.{ZONE}." for action in ("present", "cleanup")
            ]
