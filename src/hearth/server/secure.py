"""TLS of the API's listeners, and client certificates where an authority for them was given."""

from __future__ import annotations

import argparse
import ssl
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import HostUnfit, InvalidInput
from hearth.server.proxy.serving import tls_context

HANDSHAKE_S = 10.0
"""How long a client may take to agree on how to encrypt."""


@dataclass(frozen=True, kw_only=True)
class SecureOptions:
    """What the command line says of TLS: PEM files. ``client_ca`` signs certificates of users."""

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @property
    def is_on(self) -> bool:
        return self.certificate is not None


def read_options(arguments: argparse.Namespace) -> SecureOptions:
    """Read and check them.

    Raises:
        InvalidInput: one makes no sense without another.
    """
    certificate, key, client_ca = arguments.tls_cert, arguments.tls_key, arguments.client_ca
    for given, wanted, given_name, wanted_name in (
        (certificate, key, "--tls-cert", "--tls-key"),
        (key, certificate, "--tls-key", "--tls-cert"),
        (client_ca, certificate, "--client-ca", "--tls-cert"),
        (certificate, arguments.listen or None, "--tls-cert", "--listen"),
    ):
        if given is not None and wanted is None:
            raise InvalidInput(
                f"{given_name} needs {wanted_name}",
                details=f"{wanted_name} was not said",
                resolution=f"say {wanted_name}, too, or leave out {given_name}",
                field=wanted_name.lstrip("-"),
            )
    absolute = [None if path is None else path.absolute() for path in (certificate, key, client_ca)]
    return SecureOptions(certificate=absolute[0], key=absolute[1], client_ca=absolute[2])


def context_of(options: SecureOptions) -> ssl.SSLContext | None:
    """Load certificate, key and authority; None where TLS was not asked for.

    Who shows no certificate needs a token; one that the authority did not sign ends the connection.

    Raises:
        HostUnfit: they cannot be used.
    """
    if options.certificate is None or options.key is None:
        return None
    context = tls_context(options.certificate, options.key)
    if options.client_ca is not None:
        try:
            context.load_verify_locations(cafile=options.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise HostUnfit(
                "the authority for client certificates cannot be used",
                details=f"{options.client_ca}: {error.strerror or error}",
                resolution="give certificates in PEM, readable by the daemon",
            ) from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context
