"""What users call images in registries: ``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``, and what is meant by it.

Grammar: OCI distribution specification 1.1, "Pulling manifests", and the reference grammar registries share. Without a
host it is Docker Hub, whose single names lie under ``library/``; without tag and digest it is ``latest``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hearth.errors import InvalidInput
from hearth.image.oci.documents import DIGEST

HUB, HUB_HOST = "docker.io", "registry-1.docker.io"
HUB_ALIASES = frozenset({HUB, "index.docker.io", HUB_HOST})
MAX_REFERENCE = 512
MAX_PATH = 255
HOST_LABEL = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)"
HOST = re.compile(rf"(?:{HOST_LABEL}(?:\.{HOST_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
PATH = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
UNFIT_FOR_NAME = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image in a registry. ``host`` may have a port; a ``digest`` counts where there is one, whatever the tag."""

    host: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def wanted(self) -> str:
        """What to ask the registry for."""
        return self.digest or self.tag or "latest"

    @property
    def server(self) -> str:
        """Whom to ask."""
        return HUB_HOST if self.host == HUB else self.host

    @property
    def short_name(self) -> str:
        """Give a name for the image here: the last part of its path, and its tag unless that is ``latest``."""
        name = self.path.rsplit("/", 1)[-1]
        if self.tag not in (None, "latest"):
            name = f"{name}-{self.tag}"
        return UNFIT_FOR_NAME.sub("-", name.lower()).strip("-")[:63].strip("-")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.path}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str) -> Reference:
    """Read a reference and complete it.

    Raises:
        InvalidInput: it is none; ``field`` is reference.
    """
    if len(text) > MAX_REFERENCE:
        raise _invalid(text, f"it has {len(text)} characters, {MAX_REFERENCE} may be")
    name, at, digest = text.partition("@")
    if at and DIGEST.fullmatch(digest) is None:
        raise _invalid(text, "after @ comes sha256: and 64 hexadecimal digits")
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or set(first) & {".", ":", "["} or first != first.lower()):
        host, path = first.lower(), rest
    else:
        host, path = HUB, name
    path, tag = _without_tag(path)
    if HOST.fullmatch(host) is None or not _is_port(host):
        raise _invalid(text, f"{host[:80]!r} is no host")
    if tag is not None and TAG.fullmatch(tag) is None:
        raise _invalid(text, f"{tag[:80]!r} is no tag")
    if host in HUB_ALIASES:
        host = HUB
        path = path if "/" in path else f"library/{path}"
    if PATH.fullmatch(path) is None or len(path) > MAX_PATH:
        raise _invalid(text, f"{path[:80]!r} is no path of an image; it is in lower case")
    return Reference(host=host, path=path, tag=tag if tag or digest else "latest", digest=digest if at else None)


def _without_tag(path: str) -> tuple[str, str | None]:
    before, colon, tag = path.rpartition(":")
    return (before, tag) if colon and "/" not in tag else (path, None)


def _is_port(host: str) -> bool:
    _, colon, port = host.rpartition(":")
    return not colon or host.endswith("]") or 0 < int(port) < 65_536


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        "invalid reference",
        details=f"reference {text[:120]!r}: {why}",
        resolution="use one such as debian:12, ghcr.io/owner/image:tag or registry.example.org/image@sha256:…",
        field="reference",
    )
