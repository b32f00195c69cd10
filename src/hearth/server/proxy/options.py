"""What the command line says of the public: declared, read and checked."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from hearth.errors import InvalidInput
from hearth.server.listen import parse_address
from hearth.server.proxy.acme.keeper import AcmeOptions
from hearth.server.proxy.trust import Trust, read_networks

_ZONE = re.compile(r"(?=.{1,189}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_URL = re.compile(r"(https?)://([a-z0-9.-]{1,253})(?::([0-9]{1,5}))?/?")
_EMAIL = re.compile(r"[^@\s,]+@[^@\s,]+")
NEEDED = (
    ("zone", "listen"),
    ("cert", "listen"),
    ("key", "listen"),
    ("cert", "key"),
    ("key", "cert"),
    ("url", "listen"),
    ("http", "zone"),
    ("acme_directory", "zone"),
    ("acme_email", "acme_directory"),
    ("acme_ca", "acme_directory"),
    ("acme_dns_hook", "acme_directory"),
)
"""Options that make sense only with another."""


@dataclass(frozen=True, kw_only=True)
class PublicOptions:
    """Addresses are an address and a port; ``http`` is where plain HTTP is sent on to https.

    ``seen_as`` is how the public sees the listener where a proxy stands before it: scheme, host and port.
    """

    listen: tuple[str, int] | None = None
    zone: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    seen_as: tuple[str, str, int] | None = None
    http: tuple[str, int] | None = None
    acme: AcmeOptions | None = None
    trust: Trust = field(default_factory=Trust)

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None and self.acme is None else "https"


def read_options(arguments: argparse.Namespace) -> PublicOptions:
    """Read and check them.

    Raises:
        InvalidInput: one makes no sense, alone or without another.
    """
    for given, wanted in NEEDED:
        if getattr(arguments, f"public_{given}") is not None and getattr(arguments, f"public_{wanted}") is None:
            raise _missing(_option(given), _option(wanted))
    zone = None if arguments.public_zone is None else arguments.public_zone.lower().strip(".")
    if zone is not None and _ZONE.fullmatch(zone) is None:
        raise InvalidInput(
            "invalid --public-zone",
            details=f"{zone[:80]!r} is no DNS name",
            resolution="write it as example.org",
            field="public-zone",
        )
    options = PublicOptions(
        listen=_address(arguments.public_listen),
        zone=zone,
        certificate=arguments.public_cert,
        key=arguments.public_key,
        seen_as=_read_url(arguments.public_url, zone),
        http=_address(arguments.public_http),
        acme=_read_acme(arguments),
        trust=Trust(networks=read_networks(arguments.public_trusted_proxy), header=arguments.public_proxy_header),
    )
    if options.http is not None and options.scheme == "http":
        raise _missing("--public-http", "--public-cert or --public-acme-directory")
    return options


def _read_acme(arguments: argparse.Namespace) -> AcmeOptions | None:
    directory, email = arguments.public_acme_directory, arguments.public_acme_email
    hook = arguments.public_acme_dns_hook
    if directory is None:
        return None
    if not directory.startswith("https://"):
        raise InvalidInput(
            "invalid --public-acme-directory",
            details=f"{directory[:80]!r} is no https URL",
            resolution="give the address of the authority's directory",
            field="public-acme-directory",
        )
    if arguments.public_cert is not None:
        raise InvalidInput(
            "--public-acme-directory and --public-cert exclude each other",
            details="certificates are either ordered or given",
            resolution="leave one of them out",
            field="public-acme-directory",
        )
    if arguments.public_http is None and hook is None:
        raise _missing("--public-acme-directory", "--public-http or --public-acme-dns-hook")
    if email is not None and _EMAIL.fullmatch(email) is None:
        raise InvalidInput(
            "invalid --public-acme-email",
            details=repr(email[:80]),
            resolution="give one address",
            field="public-acme-email",
        )
    if hook is not None and not os.access(hook, os.X_OK):
        raise InvalidInput(
            "invalid --public-acme-dns-hook",
            details=f"{hook} is no program that the daemon may run",
            resolution="give the path of one that is executable",
            field="public-acme-dns-hook",
        )
    ca_file = arguments.public_acme_ca
    return AcmeOptions(
        directory=directory,
        email=email,
        ca_file=None if ca_file is None else ca_file.absolute(),
        hook=None if hook is None else hook.absolute(),
    )


def _read_url(text: str | None, zone: str | None) -> tuple[str, str, int] | None:
    if text is None:
        return None
    match = _URL.fullmatch(text.lower())
    if match is None or int(match[3] or 1) not in range(1, 65_536) or (zone is not None and match[2] != zone):
        raise InvalidInput(
            "invalid --public-url",
            details=f"{text[:80]!r} is no address of {zone or 'a host'}",
            resolution=f"write it as https://{zone or 'example.org'}",
            field="public-url",
        )
    return match[1], match[2], int(match[3] or {"http": 80, "https": 443}[match[1]])


def _address(text: str | None) -> tuple[str, int] | None:
    return None if text is None else parse_address(text, allow_remote=True)


def _option(name: str) -> str:
    return f"--public-{name.replace('_', '-')}"


def _missing(given: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"{given} needs {wanted}",
        details=f"{wanted} was not said",
        resolution=f"say {wanted}, too, or leave out {given}",
        field=wanted.split()[0].lstrip("-"),
    )
