"""Published ports as strangers meet them: by path and by host name, with TLS, within bounds, and nothing else."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, daemon_command, data_directory, publish_images, running_daemon
from tests.server.proxy.stage import answer_of, answering, fields_of, read_head, serving, sized
from tests.server.test_app import ask

from hearth.sdk.client import Client

ZONE = "boxes.example"
pytestmark = pytest.mark.daemon


@dataclass(frozen=True)
class House:
    """A daemon that serves the public, and a sandbox ``web`` in it."""

    daemon: RunningDaemon
    port: int
    client: Client

    def visit(
        self, path: str, *, host: str | None = None, method: str = "GET", **fields: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Ask as the public does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, path, headers={"Host": host or f"127.0.0.1:{self.port}", **headers})
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()


def public_port(daemon: RunningDaemon) -> int:
    """Read from the log where the public comes in."""
    entry = [entry for entry in daemon.log() if entry["event"] == "listening"][-1]
    (address,) = [each for each in entry["addresses"] if each.endswith("(public)")]
    return int(address.split()[0].rpartition(":")[2])


@contextlib.contextmanager
def opened(*words: str) -> Iterator[House]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--public-listen", "127.0.0.1:0", *words) as daemon, daemon.client() as client:
            client.create(name="web")
            yield House(daemon, public_port(daemon), client)


@pytest.fixture(scope="module")
def built() -> Iterator[House]:
    with opened("--public-zone", ZONE) as made:
        yield made


@pytest.fixture
def house(built: House) -> Iterator[House]:
    """The one house, by a client of the test's own: a longer-lived one opens connections whenever the old one idled."""
    with built.daemon.client() as own:
        yield replace(built, client=own)


@contextlib.contextmanager
def published(house: House, alias: str, answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Publish a server in the sandbox; gives its port, and the heads that come to it."""
    heads: list[bytes] = []

    def script(connection: socket.socket) -> None:
        while head := read_head(connection):
            heads.append(head)
            connection.sendall(answer)

    with serving(script) as server:
        house.client.ports.publish("web", server.port, alias=alias)
        try:
            yield server.port, heads
        finally:
            house.client.ports.unpublish("web", server.port)


def test_a_host_name_leads_to_its_port_and_says_so(house: House) -> None:
    with published(house, "shop", sized(b"open")) as (port, heads):
        (listed,) = house.client.ports.published("web")
        assert listed.url == f"http://shop.{ZONE}:{house.port}/"
        for host in (f"shop.{ZONE}", f"SHOP.{ZONE}.:8080"):
            answer, body = house.visit("/a/b?c=%20", host=host, Authorization="Basic abc", X_Forwarded_For="1.1.1.1")
            assert (answer.status, body) == (200, b"open")
        told = dict(fields_of(heads[0]))
        assert heads[0].startswith(b"GET /a/b?c=%20 HTTP/1.1\r\n")
        assert told["host"] == f"localhost:{port}"
        assert told["x-forwarded-host"] == f"shop.{ZONE}"
        assert told["x-forwarded-for"] == "127.0.0.1"
        assert told["authorization"] == "Basic abc", "the public has no token of ours: this one is the server's"
        assert "x-forwarded-prefix" not in told


def test_a_path_leads_there_by_the_apis_address_and_where_there_is_a_zone_not_by_the_publics(house: House) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
    with published(house, "shop", redirect) as (_, heads):
        for host in (None, ZONE, f"p.{ZONE}"):
            assert house.visit("/p/shop/cart", host=host)[0].status == 404
        assert heads == []
        status, headers, _ = ask(house.daemon, "GET", "/p/shop/cart")
        assert (status, headers["location"]) == (302, "/p/shop/login")
        assert heads[0].startswith(b"GET /cart HTTP/1.1\r\n")
        assert dict(fields_of(heads[0]))["x-forwarded-prefix"] == "/p/shop"
        status, headers, _ = ask(house.daemon, "GET", "/p/shop")
        assert (status, headers["location"]) == (302, "/p/shop/login")
        assert heads[1].startswith(b"GET / HTTP/1.1\r\n")


GOOD_HOSTS = [f"shop.{ZONE}", f"SHOP.{ZONE.upper()}", f"shop.{ZONE}.", f"shop.{ZONE}:443", f"shop.{ZONE}.:1"]
OTHER_HOSTS = [
    *(f"shop.{ZONE}..", f"shop..{ZONE}", f".shop.{ZONE}", f"shop.{ZONE}:", f"shop.{ZONE}:x", f"shop.{ZONE}:123456"),
    *(f"shop.{ZONE}:80:80", f"shop.{ZONE}@evil.example", f"evil.example@shop.{ZONE}", f"shop.{ZONE}/", f"shop.{ZONE}?"),
    *(f"shop.{ZONE}, evil.example", f"sh\u00f6p.{ZONE}", f"xn--shp-sna.{ZONE}", f"sho%70.{ZONE}", f"shop .{ZONE}"),
    *("[::1]", "[::1]:80", "::1", f"[shop.{ZONE}]", ""),
]


def test_a_host_is_the_name_to_the_letter_or_nothing(house: House) -> None:
    with published(house, "shop", sized(b"open")) as (_, heads):
        for host in (*GOOD_HOSTS, *OTHER_HOSTS):
            with socket.create_connection(("127.0.0.1", house.port), 60) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: " + host.encode("latin-1") + b"\r\n\r\n")
                answer, body = answer_of(connection)
            if host in GOOD_HOSTS:
                assert (answer.status, body) == (200, b"open"), host
            else:
                assert answer.status in (400, 404), host
        assert len(heads) == len(GOOD_HOSTS)


def test_what_a_trusted_proxy_tells_of_its_clients_reaches_the_server(house: House) -> None:
    with opened("--public-zone", ZONE, "--public-trusted-proxy", "127.0.0.0/8") as trusting:
        for one, client, scheme in [(trusting, "203.0.113.9", "https"), (house, "127.0.0.1", "http")]:
            with published(one, "shop", sized(b"open")) as (port, heads):
                one.visit(
                    "/",
                    host=f"shop.{ZONE}",
                    X_Forwarded_For="6.6.6.6, 203.0.113.9",
                    X_Forwarded_Proto="https",
                    X_Forwarded_Host="evil.example",
                    X_Forwarded_Port="1",
                    Forwarded="for=6.6.6.6",
                    X_Real_IP="6.6.6.6",
                    Origin=f"{scheme}://shop.{ZONE}",
                )
                told = fields_of(heads[0])
                assert [value for name, value in told if name == "x-forwarded-for"] == [client]
                assert [value for name, value in told if name == "x-forwarded-proto"] == [scheme]
                assert [value for name, value in told if name == "x-forwarded-host"] == [f"shop.{ZONE}"]
                assert dict(told)["origin"] == f"http://localhost:{port}"
                assert not {"x-forwarded-port", "forwarded", "x-real-ip"} & dict(told).keys()
                assert "6.6.6.6" not in str(told)


def test_a_key_of_this_daemon_that_comes_by_mistake_goes_no_further(house: House) -> None:
    token, strange = house.daemon.token, "hk_" + "0" * 64
    with published(house, "shop", sized(b"open")) as (_, heads):
        for value in (token, strange):
            fields = {"Authorization": f"Bearer {value}", "Cookie": f"a={value}", "X_Hearth_Token": value}
            house.visit(f"/?a=1&token={value}&b=2", host=f"shop.{ZONE}", **fields)
        mistaken, own = heads
        assert token.encode() not in mistaken
        assert mistaken.startswith(b"GET /?a=1&b=2 HTTP/1.1\r\n")
        told = dict(fields_of(own))
        assert told["authorization"] == f"Bearer {strange}", "a key of another daemon's is that one's business"
        assert "x-hearth-token" not in told
        assert own.startswith(f"GET /?a=1&token={strange}&b=2 HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/", None),
        ("/", ZONE),
        ("/", f"nothing.{ZONE}"),
        ("/", f"a.shop.{ZONE}"),
        ("/", f"shop.{ZONE}.evil.example"),
        ("/", "shop"),
        ("/p/nothing/", None),
        ("/p/", None),
        ("/api/v1/sandboxes", None),
        ("/health", None),
        ("/" + "a" * 3000, f"{'a' * 63}.{ZONE}"),
    ],
)
def test_what_is_not_published_is_404_and_the_api_is_not_there(house: House, path: str, host: str | None) -> None:
    with published(house, "shop", sized(b"open")) as (_, heads):
        answer, body = house.visit(path, host=host)
        assert (answer.status, body) == (404, b"nothing is published here\n")
        assert heads == []


def test_a_browser_gets_a_page_and_a_program_a_line(house: House) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        house.client.ports.publish("web", port, alias="closed")
        answer, body = house.visit("/", host=f"closed.{ZONE}")
        assert (answer.status, body) == (502, f"nothing answers on port {port} of the sandbox\n".encode())
        answer, body = house.visit("/", host=f"closed.{ZONE}", Accept="text/html,*/*")
        assert (answer.status, answer.getheader("content-type")) == (502, "text/html; charset=utf-8")
        assert body.startswith(b"<!doctype html>")
        assert "default-src 'none'" in str(answer.getheader("content-security-policy"))
        house.client.ports.unpublish("web", port)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_with_a_certificate_the_public_is_served_by_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", f"/CN={ZONE}", "-addext", f"subjectAltName=DNS:*.{ZONE}"]
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
    ]
    subprocess.run([*make, *subject, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    words = ("--public-zone", ZONE, "--public-cert", str(certificate), "--public-key", str(key))
    with opened(*words) as house, published(house, "shop", sized(b"safe")) as (_, heads):
        (listed,) = house.client.ports.published("web")
        assert listed.url == f"https://shop.{ZONE}:{house.port}/"
        context = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", house.port), 60) as plain,
            context.wrap_socket(plain, server_hostname=f"shop.{ZONE}") as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: shop.{ZONE}\r\n\r\n".encode())
            answer = http.client.HTTPResponse(secure)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b"safe")
        assert dict(fields_of(heads[0]))["x-forwarded-proto"] == "https"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--public-zone", "example.org"], "--public-zone needs --public-listen"),
        (["--public-listen", "127.0.0.1:0", "--public-cert", "c.pem"], "--public-cert needs --public-key"),
        (["--public-listen", "127.0.0.1:0", "--public-key", "k.pem"], "--public-key needs --public-cert"),
        (["--public-listen", "127.0.0.1:0", "--public-zone", "no zone"], "no DNS name"),
        (["--public-listen", "nowhere"], "not an address and a port"),
        (["--public-listen", "127.0.0.1:0", "--public-cert", "/no.pem", "--public-key", "/no.pem"], "cannot be used"),
    ],
)
def test_options_that_make_no_sense_are_told_before_anything_is_served(words: list[str], said: str) -> None:
    with data_directory() as data:
        ended = subprocess.run(daemon_command(data, *words), capture_output=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr.decode()


def test_ports_are_told_with_their_urls_and_wake_nobody(house: House) -> None:
    with serving(answering(sized(b""))) as server:
        house.client.ports.publish("web", server.port, alias="listed")
        found = {each.port: each for each in house.client.ports.of("web")}
        every = house.client.ports.every()
        house.client.ports.unpublish("web", server.port)
    told = found[server.port]
    assert told.public_url == f"http://listed.{ZONE}:{house.port}/"
    assert told.proxy_url == f"/api/v1/sandboxes/{told.sandbox_id}/proxy/{server.port}/"
    assert (told.address, told.sandbox) == ("127.0.0.1", "web")
    assert server.port in [each.port for each in every.items]
    assert every.asleep == []


def test_publishing_through_the_api_is_201_then_200_then_204_and_409(house: House) -> None:
    path, token = "/api/v1/sandboxes/web/publish", house.daemon.token
    body = json.dumps({"port": 4000, "alias": "mine"}).encode()
    for expected in (201, 200):
        status, _, made = ask(house.daemon, "POST", path, body, token=token)
        assert (status, made["alias"], made["port"]) == (expected, "mine", 4000)
    status, _, problem = ask(
        house.daemon, "POST", path, json.dumps({"port": 4001, "alias": "mine"}).encode(), token=token
    )
    assert (status, problem["code"]) == (409, "conflict")
    status, _, problem = ask(
        house.daemon, "POST", path, json.dumps({"port": 4001, "alias": "www"}).encode(), token=token
    )
    assert (status, problem["code"]) == (400, "invalid")
    assert [ask(house.daemon, "DELETE", f"{path}/4000", token=token)[0] for _ in range(2)] == [204, 404]
    assert ask(house.daemon, "DELETE", f"{path}/http", token=token)[0] == 400
