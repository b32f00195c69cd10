"""Certificates on disk: one file each, 0600, with its dates, its key and its chain, replaced as a whole."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from hearth.errors import HostUnfit
from hearth.host.files import TEMPORARY_SUFFIX, write_atomic
from hearth.server.proxy.acme.schedule import Failure

log = structlog.get_logger(__name__)

SUFFIX = ".pem"
MARK = b"# hearth "
"""Begins the first line of a file; what stands outside of its blocks is no part of PEM (RFC 7468, section 2)."""
MAX_FILE_BYTES = 1_048_576


class Dates(Struct, frozen=True, kw_only=True):
    """What is to be known of a certificate without parsing it; ``directory`` is that of who issued it."""

    names: list[str]
    directory: str
    not_before: datetime
    not_after: datetime
    issued_at: datetime
    is_renewal: bool = False


def pem_file(dates: Dates, key_pem: bytes, chain_pem: bytes) -> bytes:
    """Give the content of a certificate's file."""
    return MARK + msgspec.json.encode(dates) + b"\n" + key_pem + chain_pem


class CertificateFiles:
    """Everything about certificates in one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.challenges = root / "challenges"
        self.account_key = root / "account.key"
        self._failures = root / "failures.json"

    def prepare(self) -> None:
        """Make the directory for its owner alone, and sweep what was left unfinished.

        Raises:
            HostUnfit: it cannot be made.
        """
        try:
            for directory in (self.root, self.challenges):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                directory.chmod(0o700)
            for left in (*self.challenges.iterdir(), *self.root.glob(f"*{TEMPORARY_SUFFIX}")):
                left.unlink(missing_ok=True)
        except OSError as error:
            raise HostUnfit(
                "the directory of certificates cannot be made", details=f"{self.root}: {error.strerror}"
            ) from error

    def path(self, name: str) -> Path:
        """Tell where the certificate of a name is, or would be; ``name`` is a DNS name, perhaps with a wildcard."""
        return self.root / (name.replace("*", "_") + SUFFIX)

    def load(self) -> dict[str, Dates]:
        """Give what there is, by the first name of each; what cannot be read is as if it were not there."""
        found: dict[str, Dates] = {}
        for path in sorted(self.root.glob(f"*{SUFFIX}")):
            try:
                dates = read_dates(path)
            except (OSError, ValueError) as error:
                log.warning("a certificate cannot be read and is ordered anew", path=str(path), error=str(error))
                continue
            found[dates.names[0]] = dates
        return found

    def context(self, name: str, alpn: list[str]) -> ssl.SSLContext:
        """Give a TLS context with a name's certificate.

        Raises:
            OSError, ssl.SSLError: it cannot be used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(alpn)
        context.load_cert_chain(self.path(name))
        return context

    def remove(self, name: str) -> None:
        """Forget a certificate."""
        self.path(name).unlink(missing_ok=True)

    def load_failures(self) -> dict[str, Failure]:
        """Give the orders that failed and are to be tried again: a daemon that is restarted must not begin at once."""
        try:
            return msgspec.json.decode(self._failures.read_bytes(), type=dict[str, Failure])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            log.warning("failed orders cannot be read", path=str(self._failures), error=str(error))
            return {}

    def save_failures(self, failures: dict[str, Failure]) -> None:
        """Keep them."""
        write_atomic(self._failures, msgspec.json.encode(failures))


def read_dates(path: Path) -> Dates:
    """Read the first line of a certificate's file.

    Raises:
        ValueError: it is none of ours.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        line = file.readline(MAX_FILE_BYTES)
    if not line.startswith(MARK):
        raise ValueError("its first line is not ours")
    dates = msgspec.json.decode(line[len(MARK) :], type=Dates)
    if not dates.names:
        raise ValueError("it names nobody")
    return dates
