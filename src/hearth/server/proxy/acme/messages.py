"""What the daemon and its child that talks to a certificate authority say to each other: JSON by stdin and stdout."""

from __future__ import annotations

from msgspec import Struct


class Order(Struct, frozen=True, kw_only=True):
    """A certificate to be had.

    Args:
        directory: the authority's, https.
        names: to be certified; ``*.example.org`` needs a ``hook``.
        email: for the authority, to warn; kept by it.
        ca_file: PEM of who vouches for the directory; the usual ones without it.
        account_key: path of the account's key in PEM, made where there is none.
        challenges: directory in which answers to HTTP-01 are put, for the daemon to serve.
        hook: program that puts DNS records in place; HTTP-01 without it.
        path: of the key and the chain in one file, replaced at the end.
        is_renewal: there was one for these names before.
        timeout_s: for all of it.
    """

    directory: str
    names: list[str]
    email: str | None
    ca_file: str | None
    account_key: str
    challenges: str
    hook: str | None
    path: str
    is_renewal: bool
    timeout_s: float


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How it went; without ``error`` the certificate is there.

    Args:
        error: in a line, as the authority told it.
        is_rate_limited: the authority wants no orders for now, of nobody here.
        retry_after_s: when it wants to be asked again.
    """

    error: str | None = None
    is_rate_limited: bool = False
    retry_after_s: float | None = None
