"""The child that gets one certificate from an authority (ACME, RFC 8555): a program, an order in, its outcome out.

It is a process of its own, so that the daemon neither loads nor waits for what it takes: certbot's libraries, 0.3 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import acme.errors
import msgspec
import requests
import structlog
from acme import challenges, crypto_util, messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from hearth.errors import HearthError
from hearth.host.files import write_atomic
from hearth.host.process import run
from hearth.server.proxy.acme.files import Dates, pem_file
from hearth.server.proxy.acme.messages import Order, Outcome
from hearth.version import VERSION

HOOK_S = 300.0
"""How long a hook may take until its record is seen everywhere."""
REQUEST_S = 30
RATE_LIMITED, BAD_NONCE = "rateLimited", "badNonce"
NONCE_ATTEMPTS = 5
"""Each of two requests; an authority of several machines may not know its own nonce for a moment."""
LONGEST_ERROR = 500


class CannotProve(Exception):
    """The authority offers no challenge that we can answer."""


class PatientNetwork(ClientNetwork):
    """The library's, which tries a request whose nonce is refused once more, and then no more."""

    def post(self, *arguments: Any, **options: Any) -> requests.Response:
        for _ in range(NONCE_ATTEMPTS - 1):
            try:
                return super().post(*arguments, **options)
            except messages.Error as error:
                if error.code != BAD_NONCE:
                    raise
        return super().post(*arguments, **options)


class Conversation:
    """One order with an authority. Blocking."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._deadline = datetime.now() + timedelta(seconds=order.timeout_s)
        self._key = JWKEC(key=load_account_key(Path(order.account_key)))
        self._net = PatientNetwork(
            self._key,
            alg=ES256,
            verify_ssl=order.ca_file or True,  # type: ignore[arg-type]  # requests takes a path, too
            user_agent=f"hearth/{VERSION}",
            timeout=REQUEST_S,
        )
        self._net.session.hooks["response"].append(self._note)
        self.retry_after_s: float | None = None

    def certify(self) -> None:
        """Get the certificate and put it in its place.

        Raises:
            acme.errors.Error, requests.RequestException, HearthError, CannotProve: there is none.
        """
        order = self._order
        client = ClientV2(ClientV2.get_directory(order.directory, self._net), self._net)
        self._register(client)
        key_pem = _pem_of(ec.generate_private_key(ec.SECP256R1()))
        placed = client.new_order(crypto_util.make_csr(key_pem, order.names))
        with contextlib.ExitStack() as proofs:
            for authorization in placed.authorizations:
                if authorization.body.status == messages.STATUS_PENDING:
                    challenge = self._choose(authorization)
                    proofs.enter_context(self._proof(challenge.chall, authorization.body.identifier.value))
                    client.answer_challenge(challenge, challenge.response(self._key))
            done = client.poll_and_finalize(placed, self._deadline)
        chain = done.fullchain_pem.encode()
        leaf = x509.load_pem_x509_certificate(chain)
        dates = Dates(
            names=order.names,
            directory=order.directory,
            not_before=leaf.not_valid_before_utc,
            not_after=leaf.not_valid_after_utc,
            issued_at=datetime.now(UTC),
            is_renewal=order.is_renewal,
        )
        write_atomic(Path(order.path), pem_file(dates, key_pem, chain), mode=0o600)

    def _register(self, client: ClientV2) -> None:
        wanted = messages.NewRegistration.from_data(email=self._order.email, terms_of_service_agreed=True)
        try:
            client.new_account(wanted)
        except acme.errors.ConflictError as known:  # the key has an account: that is ours
            body = messages.Registration()
            self._net.account = messages.RegistrationResource(body=body, uri=known.location)

    def _choose(self, authorization: messages.AuthorizationResource) -> Any:
        kind = challenges.HTTP01 if self._order.hook is None else challenges.DNS01
        for offered in authorization.body.challenges:
            if isinstance(offered.chall, kind):
                return offered
        raise CannotProve(f"the authority offers no {kind.typ} for {authorization.body.identifier.value}")

    @contextlib.contextmanager
    def _proof(self, challenge: Any, domain: str) -> Iterator[None]:
        """Have the proof where the authority looks for it, as long as the context lasts."""
        proof = challenge.validation(self._key)
        if self._order.hook is None:
            path = Path(self._order.challenges) / challenge.encode("token")
            write_atomic(path, proof.encode(), mode=0o600)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        record = (f"{challenge.validation_domain_name(domain)}.", proof)
        asyncio.run(run([self._order.hook, "present", *record], timeout_s=HOOK_S))
        try:
            yield
        finally:
            asyncio.run(run([self._order.hook, "cleanup", *record], timeout_s=HOOK_S))

    def _note(self, response: requests.Response, *_: Any, **__: Any) -> None:
        """Keep what an authority that refuses says of when to come again; the library drops it."""
        if response.status_code >= 400 and "Retry-After" in response.headers:
            until = ClientV2.retry_after(response, 0) - datetime.now()
            self.retry_after_s = max(until.total_seconds(), 0.0)


def load_account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load the account's key, making it at the first order.

    Raises:
        ValueError: the file holds something else.
    """
    with contextlib.suppress(FileNotFoundError):
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path} holds no key on an elliptic curve")
        return key
    made = ec.generate_private_key(ec.SECP256R1())
    write_atomic(path, _pem_of(made), mode=0o600)
    return made


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def carry_out(order: Order) -> Outcome:
    """Carry out an order and tell how it went."""
    conversation = Conversation(order)
    try:
        conversation.certify()
    except messages.Error as error:
        limited = error.code == RATE_LIMITED
        return Outcome(error=told(error), is_rate_limited=limited, retry_after_s=conversation.retry_after_s)
    except (acme.errors.Error, requests.RequestException, HearthError, CannotProve) as error:
        return Outcome(error=told(error), retry_after_s=conversation.retry_after_s)
    return Outcome()


def told(error: Exception) -> str:
    """Say an error in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, acme.errors.TimeoutError):
        words = "the authority took too long"
    return "".join(each if each.isprintable() else "?" for each in words)[:LONGEST_ERROR]


def main() -> int:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for the outcome
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(carry_out(order)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
