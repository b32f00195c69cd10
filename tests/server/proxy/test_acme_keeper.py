"""What the keeper makes of what it finds, and of orders that go wrong: real files, a real child, an authority that is
not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.ports import free_ports

from hearth.host.clock import SystemClock
from hearth.server.proxy.acme.files import CertificateFiles, Dates, pem_file
from hearth.server.proxy.acme.keeper import AcmeOptions, Keeper
from hearth.server.proxy.acme.schedule import Failure
from hearth.server.proxy.serving import PROBE_EVERY_S, SILENT_S, listener_on

ZONE = "boxes.example"
HERE, ELSEWHERE = "https://127.0.0.1:1/dir", "https://staging.example/dir"
WAIT_S = 60


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    made = CertificateFiles(tmp_path / "certificates")
    made.prepare()
    return made


def keep(files: CertificateFiles, name: str, *, directory: str = HERE, days: float = 80) -> bytes:
    """Put a certificate in place; gives its file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    until = datetime.now(UTC) + timedelta(days=days)
    dates = Dates(
        names=[name],
        directory=directory,
        not_before=until - timedelta(days=90),
        not_after=until,
        issued_at=until - timedelta(days=90),
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates.not_before)
        .not_valid_after(dates.not_after)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    content = pem_file(dates, key_pem, certificate.public_bytes(serialization.Encoding.PEM))
    files.path(name).write_bytes(content)
    return content


def keeper(files: CertificateFiles, *aliases: str, options: AcmeOptions | None = None) -> Keeper:
    async def published() -> Sequence[str]:
        return aliases

    options = options or AcmeOptions(directory=HERE)
    made = Keeper(options, zone=ZONE, files=files, aliases=published, clock=SystemClock())
    made.load()
    return made


@contextlib.asynccontextmanager
async def running(kept: Keeper) -> AsyncIterator[None]:
    task = asyncio.create_task(kept.run(), name="keeper")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def wait_for(kept: Keeper, alias: str, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while kept.told(alias).state != state:
            await asyncio.sleep(0.02)


def test_what_an_earlier_daemon_left_is_used_and_what_is_damaged_is_not(files: CertificateFiles) -> None:
    keep(files, f"web.{ZONE}")
    files.path(f"empty.{ZONE}").write_bytes(b"")
    files.path(f"other.{ZONE}").write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    files.path(f"cut.{ZONE}").write_bytes(keep(files, f"cut.{ZONE}")[:400])
    (files.challenges / "left").write_bytes(b"proof")
    (files.root / "x.pem.0123.tmp").write_bytes(b"half")
    kept = keeper(files, "web", "cut")
    assert kept.told("web").state == "ready"
    assert [kept.told(alias).state for alias in ("cut", "empty", "other")] == ["ordered"] * 3
    assert kept.context_for(f"WEB.{ZONE}") is not None
    for host in (f"cut.{ZONE}", ZONE, f"a.web.{ZONE}", "web.elsewhere.example", "", "web", f"*.{ZONE}"):
        assert kept.context_for(host) is None, host
    assert list(files.challenges.iterdir()) == []
    assert not (files.root / "x.pem.0123.tmp").exists()


def test_a_wildcard_holds_for_every_name_right_below_the_zone(files: CertificateFiles, tmp_path: Path) -> None:
    keep(files, f"*.{ZONE}")
    kept = keeper(files, options=AcmeOptions(directory=HERE, hook=tmp_path / "hook"))
    assert kept.context_for(f"any.{ZONE}") is not None
    assert kept.context_for(f"a.any.{ZONE}") is None
    assert kept.context_for(ZONE) is None
    assert kept.told("any").state == "ready"


async def test_another_authority_is_asked_for_another_while_the_old_one_serves(files: CertificateFiles) -> None:
    before = keep(files, f"web.{ZONE}", directory=ELSEWHERE)
    kept = keeper(files, "web")
    assert kept.told("web").state == "ordered"
    async with running(kept):
        await wait_for(kept, "web", "failed")
    assert kept.context_for(f"web.{ZONE}") is not None
    assert files.path(f"web.{ZONE}").read_bytes() == before


async def test_an_authority_that_is_not_there_is_told_of_and_remembered(files: CertificateFiles) -> None:
    (port,) = free_ports(1)
    options = AcmeOptions(directory=f"https://127.0.0.1:{port}/dir")
    kept = keeper(files, "web", options=options)
    async with running(kept):
        await wait_for(kept, "web", "failed")
        told = kept.told("web")
        assert told.error is not None
        assert "refused" in told.error.lower()
        assert told.error.isprintable()
        async with asyncio.timeout(WAIT_S):
            while f"web.{ZONE}" not in files.load_failures():
                await asyncio.sleep(0.02)
    again = keeper(files, "web", options=options)
    assert again.told("web") == told
    assert stat.S_IMODE((files.root / "failures.json").stat().st_mode) == 0o600


def test_damaged_failures_are_none(files: CertificateFiles) -> None:
    files.save_failures({"a": Failure(count=1, error="no", retry_at=datetime.now(UTC))})
    assert set(files.load_failures()) == {"a"}
    (files.root / "failures.json").write_bytes(b"{")
    assert files.load_failures() == {}


def test_peers_that_are_gone_without_a_word_are_noticed() -> None:
    with (
        listener_on(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
        contextlib.closing(listener.accept()[0]) as accepted,
    ):
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENT_S
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == PROBE_EVERY_S
