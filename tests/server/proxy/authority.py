"""A real certificate authority on loopback: Pebble, Let's Encrypt's own for tests, with its DNS server."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.ports import free_ports

PROGRAMS = ("pebble", "pebble-challtestsrv")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
START_S = 60.0


@dataclass(frozen=True)
class Authority:
    """One that answers. ``ca_file`` vouches for its directory, ``roots`` for what it issues."""

    directory: str
    ca_file: Path
    management: str
    dns_management: str

    def roots(self) -> ssl.SSLContext:
        """Give a client's context that believes what it issues."""
        with urllib.request.urlopen(f"{self.management}/roots/0", context=self._own(), timeout=START_S) as answer:
            return ssl.create_default_context(cadata=answer.read().decode())

    def set_txt(self, name: str, value: str) -> None:
        """Put a TXT record in place."""
        self._tell("set-txt", {"host": name, "value": value})

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(self.directory, context=self._own(), timeout=START_S).close()
        except OSError:
            return False
        return True

    def _own(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _tell(self, what: str, body: dict[str, str]) -> None:
        request = urllib.request.Request(f"{self.dns_management}/{what}", json.dumps(body).encode(), method="POST")
        urllib.request.urlopen(request, timeout=START_S).close()


@contextlib.contextmanager
def authority(directory: Path, *, port: int, http_port: int) -> Iterator[Authority]:
    """Run one on ``port``; it looks for proofs at 127.0.0.1:``http_port``, whatever the name."""
    dns, dns_management, management = free_ports(3)
    ca_file, key_file = directory / "directory.pem", directory / "directory.key"
    _vouch_for_loopback(ca_file, key_file)
    config = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(ca_file),
        "privateKey": str(key_file),
        "httpPort": http_port,
        "tlsPort": 1,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    config_file = directory / "pebble.json"
    config_file.write_text(json.dumps({"pebble": config}))
    resolver = ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{dns_management}", "-defaultIPv6", ""]
    others = ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    # It waits before it looks unless told not to; it refuses one nonce in five, as others do now and then.
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
    with (
        _running([PROGRAMS[1], *resolver, *others], environment, directory),
        _running([PROGRAMS[0], "-config", str(config_file), "-dnsserver", f"127.0.0.1:{dns}"], environment, directory),
    ):
        made = Authority(
            f"https://127.0.0.1:{port}/dir",
            ca_file,
            f"https://127.0.0.1:{management}",
            f"http://127.0.0.1:{dns_management}",
        )
        deadline = time.monotonic() + START_S
        while not made.answers():
            assert time.monotonic() < deadline, "the authority does not answer"
            time.sleep(0.05)
        yield made


@contextlib.contextmanager
def _running(argv: list[str], environment: dict[str, str], directory: Path) -> Iterator[None]:
    with (directory / f"{argv[0]}.log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _vouch_for_loopback(certificate_file: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
