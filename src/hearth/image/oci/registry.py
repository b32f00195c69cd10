"""One repository of a registry, as the OCI distribution specification (1.1, "Pull") has it, for one who asks."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import msgspec

from hearth.errors import Forbidden
from hearth.image.layers.refused import refused
from hearth.image.oci.challenge import Challenge, parse_challenges
from hearth.image.oci.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_DOCUMENT_BYTES,
    Chosen,
    Descriptor,
    ImageConfig,
    Index,
    Platform,
    check_content,
    choose,
    decode,
    digest_of,
    read_config,
    read_manifest,
)
from hearth.image.oci.reference import Reference
from hearth.image.oci.transport import Answer, RegistryNotFound, RegistryRefused, Transport, Url, unreachable

MAX_TOKEN_BYTES = 64 * 1024
MAX_NESTING = 3
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """How somebody proves to a registry who they are."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token server's answer; either name is in use."""

    token: str = ""
    access_token: str = ""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a reference stands for now: checksum of its manifest, its layers from the lowest, its configuration."""

    digest: str
    config_digest: str
    layers: Sequence[Descriptor]
    config: ImageConfig

    @property
    def size_bytes(self) -> int:
        return sum(layer.size for layer in self.layers)


class Registry:
    """Asks one registry for one image.

    Args:
        insecure: speak without TLS, where the operator permits that.

    Raises:
        Forbidden: the operator does not, or has named other registries alone.
    """

    def __init__(
        self, transport: Transport, reference: Reference, credentials: Credentials | None, *, insecure: bool
    ) -> None:
        self.reference = reference
        self._transport = transport
        self._credentials = credentials
        self._authorization: str | None = None
        scheme = "http" if insecure else "https"
        self.base = Url.of(f"{scheme}://{reference.server}/")
        if not transport.registries.may_pull(self.base.host, self.base.port):
            raise Forbidden(
                "images may not come from this registry",
                details=f"{reference.host} is none of those the operator has named",
                resolution="pull from one of those, or import an archive",
                field="reference",
            )
        if insecure and not transport.registries.is_plain(self.base.host, self.base.port):
            raise Forbidden(
                "this registry may not be spoken to without TLS",
                details=f"{reference.server} is none that the operator has named",
                resolution=f"leave out insecure, or ask for 'hearth serve --registry-insecure {reference.server}'",
                field="insecure",
            )

    @property
    def label(self) -> str:
        """Name the registry: what is cached of one is given to nobody who asks another."""
        return f"{self.base.scheme}-{self.base.host}-{self.base.port}"

    async def resolve(self, wanted: Platform) -> Resolved:
        """Find what the reference stands for on a platform; every checksum is verified.

        Raises:
            RegistryNotFound, RegistryRefused, RegistryUnreachable: it cannot be had.
            ImageRefused: it is no image, or not what its checksum says.
        """
        chosen = await self._manifest(wanted)
        described = chosen.manifest.config
        if described.size > MAX_DOCUMENT_BYTES:
            raise refused(f"its configuration has {described.size} bytes, {MAX_DOCUMENT_BYTES} may be")
        async with self.blob(described) as answer:
            data = await answer.read(MAX_DOCUMENT_BYTES)
        check_content(data, described, "configuration")
        config = read_config(data, len(chosen.manifest.layers), wanted)
        return Resolved(
            digest=chosen.digest, config_digest=described.digest, layers=chosen.manifest.layers, config=config
        )

    async def may_have(self, blob: Descriptor) -> bool:
        """Ask whether whoever asks may have a blob, without fetching it."""
        async with self._ask("HEAD", f"blobs/{blob.digest}") as answer:
            length = answer.headers.get("content-length")
            return answer.status == 200 and length in (None, str(blob.size))

    @contextlib.asynccontextmanager
    async def blob(self, blob: Descriptor, start: int = 0) -> AsyncIterator[Answer]:
        """Fetch a blob from an offset on; the status tells whether it came from there (206) or whole (200).

        Raises:
            RegistryNotFound, RegistryRefused, RegistryUnreachable: it cannot be had.
        """
        headers = {"range": f"bytes={start}-{blob.size - 1}"} if start else {}
        async with self._ask("GET", f"blobs/{blob.digest}", **headers) as answer:
            if answer.status not in (200, 206, 416):
                raise self._failure(answer.status, f"blob {blob.digest}")
            yield answer

    async def _manifest(self, wanted: Platform) -> Chosen:
        digest, name = self.reference.digest, self.reference.wanted
        descriptor: Descriptor | None = None
        for _ in range(MAX_NESTING):
            async with self._ask("GET", f"manifests/{name}", accept=", ".join(MANIFEST_TYPES + INDEX_TYPES)) as answer:
                if answer.status != 200:
                    raise self._failure(answer.status, str(self.reference))
                data = await answer.read(MAX_DOCUMENT_BYTES)
                kind = answer.headers.get("content-type", "").partition(";")[0].strip()
            found = digest_of(data, digest or "sha256:")
            if digest is not None and found != digest:
                raise refused(f"the registry sent another manifest than {digest}")
            if descriptor is not None:
                check_content(data, descriptor, "manifest")
            if kind.startswith(SCHEMA_1):
                raise refused(
                    "its manifest has the form of 2014, schema 1", resolution="push it again with a newer tool"
                )
            if kind not in INDEX_TYPES and not _is_index(data):
                return Chosen(digest=found, manifest=read_manifest(data))
            descriptor = choose(decode(data, Index, "index").manifests, wanted)
            digest = name = descriptor.digest
        raise refused("its indexes lead to one another")

    @contextlib.asynccontextmanager
    async def _ask(self, method: str, what: str, **headers: str) -> AsyncIterator[Answer]:
        """Ask for something of the repository, and prove who asks when the registry wants to know."""
        url = Url(
            scheme=self.base.scheme,
            host=self.base.host,
            port=self.base.port,
            target=f"/v2/{self.reference.path}/{what}",
        )
        for is_last in (False, True):
            authorization = self._authorization
            async with self._transport.request(method, url, headers=headers, authorization=authorization) as answer:
                if answer.status != 401 or is_last or answer.url.origin != url.origin:
                    yield answer
                    return
                challenges = parse_challenges(answer.headers.get("www-authenticate", ""))
            self._authorization = await self._authorize(challenges)

    async def _authorize(self, challenges: Sequence[Challenge]) -> str:
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return f"Bearer {await self._fetch_token(challenge)}"
            if challenge.scheme == "basic" and self._credentials is not None:
                return self._credentials.basic
        raise self._failure(401, str(self.reference))

    async def _fetch_token(self, challenge: Challenge) -> str:
        """Get a token where the registry says; credentials go there over TLS, or to the registry itself."""
        realm = Url.of(challenge.parameters["realm"])
        if realm.scheme != "https" and realm.host != self.base.host:
            raise refused(f"the registry sends whoever asks to {realm.host}, without TLS")
        if realm.scheme != "https" and self.base.scheme == "https":
            raise refused("the registry asks for credentials without TLS")
        asked = {"scope": f"repository:{self.reference.path}:pull"}
        if service := challenge.parameters.get("service"):
            asked["service"] = service
        credentials = self._credentials
        if credentials is not None:
            asked["account"] = credentials.username
        target = f"{realm.target}{'&' if '?' in realm.target else '?'}{urlencode(asked)}"
        url = Url(scheme=realm.scheme, host=realm.host, port=realm.port, target=target)
        basic = None if credentials is None else credentials.basic
        async with self._transport.request("GET", url, headers={}, authorization=basic) as answer:
            if answer.status != 200:
                raise self._failure(answer.status, f"a token from {realm.host}")
            token = decode(await answer.read(MAX_TOKEN_BYTES), Token, "registry's token")
        value = token.token or token.access_token
        if not value or not value.isascii() or not value.isprintable():
            raise refused(f"{realm.host} gave no token")
        return value

    def _failure(self, status: int, what: str) -> Exception:
        if status in (401, 403):
            known = "the credentials are not enough" if self._credentials else "it asks for credentials"
            return RegistryRefused(
                "the registry refuses this",
                details=f"{self.reference.host} answers {status} for {what}: {known}, or there is no such image",
                resolution="check the reference, and give a username and password that may pull it",
                field="reference",
            )
        if status == 404:
            return RegistryNotFound(
                "no such image in the registry",
                details=f"{self.reference.host} has no {what}",
                resolution="check path, tag and digest",
                field="reference",
            )
        return unreachable(self.base, f"it answers {status} for {what}")


def _is_index(data: bytes) -> bool:
    """Tell an index by its form where the registry does not say; Docker's and OCI's alike."""
    document = decode(data, dict, "manifest")
    return "manifests" in document and "layers" not in document
