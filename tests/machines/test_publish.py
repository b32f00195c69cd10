"""A published port of a real machine: strangers wake it from disk, and browsers see a page meanwhile."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest
from tests.boot import link_images
from tests.machines.test_first_light import vmms_of
from tests.server.daemon import RunningDaemon, data_directory, running_daemon
from tests.server.proxy.test_public import public_port

from hearth.sdk.client import Client, Sandbox

pytestmark = pytest.mark.slow

PORT = 3000
WAIT_S = 120
SERVER = f"""
use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => {PORT}, Listen => 16, ReuseAddr => 1);
my $count = 0;
while (my $connection = $listener->accept) {{
    while (my $line = <$connection>) {{ last if $line eq "\\r\\n"; }}
    my $body = "visit " . ++$count;
    print $connection "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\n\\r\\n$body";
    close $connection;
}}
"""
"""Counts its visits in memory: who goes on counting was woken, not booted."""
START = 'setsid perl -e "$1" >/dev/null 2>&1 </dev/null &'


@pytest.fixture(scope="module")
def public(images: None) -> Iterator[RunningDaemon]:
    with data_directory() as directory:
        link_images(directory)
        with running_daemon(directory, "--engine", "qemu", "--pool", "0", "--public-listen", "127.0.0.1:0") as running:
            yield running


@pytest.fixture
def web(public: RunningDaemon) -> Iterator[tuple[Client, Sandbox]]:
    """A machine with a server on the port, published as ``web``."""
    with public.client() as client, client.create(name="web") as sandbox:
        sandbox.run(["sh", "-c", START, "sh", SERVER]).check()
        deadline = time.monotonic() + WAIT_S
        while PORT not in [each.port for each in client.ports.of("web")]:
            assert time.monotonic() < deadline, "the server does not listen"
        client.ports.publish("web", PORT)
        yield client, sandbox


def visit(public: RunningDaemon, **fields: str) -> tuple[int, bytes]:
    """Come by as a stranger."""
    connection = http.client.HTTPConnection("127.0.0.1", public_port(public), timeout=WAIT_S)
    try:
        connection.request("GET", "/p/web/", headers=fields)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_stranger_wakes_a_machine_from_disk_and_from_a_pause(
    public: RunningDaemon, web: tuple[Client, Sandbox]
) -> None:
    client, sandbox = web
    assert visit(public) == (200, b"visit 1")

    sandbox.stop()
    assert vmms_of(sandbox.id) == []
    assert client.ports.every().asleep == ["web"]
    assert vmms_of(sandbox.id) == [], "asking for all ports woke it"
    assert visit(public) == (200, b"visit 2")
    assert sandbox.refresh().view.heat == "hot"

    sandbox.pause()
    assert sandbox.refresh().view.heat == "warm"
    assert visit(public) == (200, b"visit 3")

    sandbox.stop()
    status, page = visit(public, Accept="text/html")
    deadline = time.monotonic() + WAIT_S
    while status == 503:
        assert b"Waking web" in page
        assert time.monotonic() < deadline, "it was never woken"
        status, page = visit(public, Accept="text/html")
    assert (status, page) == (200, b"visit 4")

    with client.ports.forward("web", PORT) as (host, port):
        sandbox.stop()
        connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"visit 5", "the first connection wakes it"
        connection.close()
