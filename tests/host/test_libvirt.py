"""The connection to a libvirt: lost, frozen, unreachable, without a binding; and nothing said behind our back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.libvirtd import Libvirtd, own_libvirtd

from hearth.host.libvirt import LEFT_MAX, Libvirt, LibvirtFailed, LibvirtUnavailable, is_local
from hearth.host.libvirt_binding import NO_POOL, Connection, Domain

NOWHERE = "qemu+unix:///system?socket=/nonexistent/libvirt-sock"
SETTLE_S = 30.0


@contextlib.asynccontextmanager
async def connected(uri: str, *, call_timeout_s: float = 60.0) -> AsyncIterator[Libvirt]:
    libvirt = Libvirt(uri, call_timeout_s=call_timeout_s)
    try:
        yield libvirt
    finally:
        await libvirt.close()


def version(connection: Connection) -> int:
    return connection.getLibVersion()


def domains_twice(connection: Connection) -> list[Domain]:
    return [*connection.listAllDomains(), *connection.listAllDomains()]


def own(libvirtd: Libvirtd) -> int:
    if libvirtd.own is None:
        pytest.skip("another's libvirt is not stopped")
    return libvirtd.own.pid()


@pytest.mark.libvirt
async def test_what_libvirt_refuses_is_raised_and_printed_nowhere(
    libvirtd: Libvirtd, capfd: pytest.CaptureFixture[str]
) -> None:
    async with connected(libvirtd.uri) as libvirt:
        with pytest.raises(LibvirtFailed, match="no storage pool") as caught:
            await libvirt.call(lambda connection: connection.storagePoolLookupByName("nowhere"))
    assert caught.value.number == NO_POOL
    assert capfd.readouterr() == ("", "")


@pytest.mark.libvirt
async def test_many_calls_at_once_share_a_connection(libvirtd: Libvirtd) -> None:
    async with connected(libvirtd.uri) as libvirt:
        found = await asyncio.gather(*(libvirt.call(version) for _ in range(32)))
    assert len(set(found)) == 1


@pytest.mark.libvirt
async def test_a_server_that_started_anew_is_found_again(libvirtd: Libvirtd) -> None:
    del libvirtd  # the binding is loaded with it
    with own_libvirtd() as server:
        async with connected(server.uri) as libvirt:
            before = await libvirt.call(version)
            server.stop()
            with pytest.raises(LibvirtUnavailable, match="virsh -c"):
                await libvirt.call(version)
            await asyncio.to_thread(server.start)
            assert await libvirt.call(version) == before
            server.stop()
            await asyncio.to_thread(server.start)
            # What looked alive is found to be dead by the first call; what may happen twice is then asked again.
            assert await libvirt.call(domains_twice) == []
            server.stop()
            await asyncio.to_thread(server.start)
            with pytest.raises(LibvirtUnavailable):
                await libvirt.call(domains_twice, again=False)


@pytest.mark.libvirt
async def test_a_frozen_server_keeps_nobody_waiting_for_good(libvirtd: Libvirtd) -> None:
    pid = own(libvirtd)
    async with connected(libvirtd.uri, call_timeout_s=1.0) as libvirt:
        assert await libvirt.call(version)
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(LEFT_MAX):
                with pytest.raises(LibvirtUnavailable, match="no answer within"):
                    await libvirt.call(lambda connection: connection.listAllDomains(), timeout_s=0.1)
            with pytest.raises(LibvirtUnavailable, match="wait for an answer already"):
                await libvirt.call(lambda connection: connection.listAllDomains())
        finally:
            os.kill(pid, signal.SIGCONT)
        async with asyncio.timeout(SETTLE_S):
            while any(thread.name == "libvirt" for thread in threading.enumerate()):
                await asyncio.sleep(0.01)
        assert await libvirt.call(lambda connection: connection.listAllDomains(), timeout_s=SETTLE_S) == []


@pytest.mark.libvirt
async def test_nobody_at_the_other_end_is_said_with_what_to_look_at(libvirtd: Libvirtd) -> None:
    async with connected(NOWHERE) as libvirt:
        with pytest.raises(LibvirtUnavailable, match="libvirt_uri"):
            await libvirt.call(version)


def test_a_missing_binding_names_what_to_install(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["libvirt"] = None  # as if no package had it
from pathlib import Path
from hearth.errors import HostUnfit
from hearth.host import libvirt_binding
libvirt_binding.PLACES = (Path({str(tmp_path)!r}),)
try:
    libvirt_binding.load_binding()
except HostUnfit as error:
    print(error)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "apt-get install python3-libvirt" in found.stdout
    assert str(tmp_path) in found.stdout


@pytest.mark.parametrize(
    ("uri", "is_here"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu+unix:///system?socket=/run/x", True),
        ("qemu+ssh://host.example.org/system", False),
        ("qemu+tcp:///system", False),
        ("qemu+ssh:///system", False),
        ("test:///default", False),
    ],
)
def test_a_uri_says_whether_its_files_are_ours(uri: str, is_here: bool) -> None:
    assert is_local(uri) is is_here
