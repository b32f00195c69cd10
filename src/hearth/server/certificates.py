"""TLS contexts that serve, and may be given a renewed certificate meanwhile; open connections keep theirs."""

from __future__ import annotations

import ssl
from pathlib import Path

from hearth.server.proxy.serving import tls_context

Pair = tuple[Path, Path]
"""A certificate chain and its private key, in PEM."""


class Certificates:
    """The contexts of a daemon by what they serve: ``tls`` the API, ``public`` published ports."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def keep(self, what: str, context: ssl.SSLContext | None) -> None:
        """Remember a context; None is none."""
        if context is not None:
            self._contexts[what] = context

    def renew(self, pairs: dict[str, Pair]) -> list[str]:
        """Load the files again; gives what was renewed. All are tried before the first one changes.

        Raises:
            HostUnfit: one cannot be used; nothing has changed.
        """
        known = {what: pair for what, pair in pairs.items() if what in self._contexts}
        for certificate, key in known.values():
            tls_context(certificate, key)
        for what, (certificate, key) in known.items():
            self._contexts[what].load_cert_chain(certificate, key)
        return sorted(known)
