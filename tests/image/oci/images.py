"""Container images made by tests, and a client that pushes them as the distribution specification has it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image: its manifest, and its blobs by digest."""

    manifest: bytes
    blobs: Mapping[str, bytes]
    config: bytes

    @property
    def digest(self) -> str:
        return digest(self.manifest)


def build(
    layers: Sequence[bytes],
    *,
    packed: Sequence[bytes] | None = None,
    architecture: str = "amd64",
    config: Mapping[str, Any] | None = None,
    diff_ids: Sequence[str] | None = None,
) -> Built:
    """Give an image of layers; ``packed`` are they as they travel, gzip where nothing is said."""
    packed = packed or [gzip.compress(layer, 1, mtime=0) for layer in layers]
    document = {
        "os": "linux",
        "architecture": architecture,
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or [digest(layer) for layer in layers])},
    }
    text = json.dumps(document).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(text, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(each, LAYER) for each in packed],
    }
    return Built(
        manifest=json.dumps(manifest).encode(),
        blobs={digest(each): each for each in (text, *packed)},
        config=text,
    )


def described(data: bytes, media: str, **more: object) -> dict[str, object]:
    return {"mediaType": media, "digest": digest(data), "size": len(data), **more}


def index_of(images: Mapping[str, Built]) -> bytes:
    """Give an index of images by their architectures."""
    manifests = [
        described(image.manifest, MANIFEST, platform={"os": "linux", "architecture": name})
        for name, image in images.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


@dataclass(kw_only=True)
class Pusher:
    """Pushes to one repository; blocking."""

    host: str
    repository: str
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def basic(cls, host: str, repository: str, user: str, password: str) -> Pusher:
        proof = base64.b64encode(f"{user}:{password}".encode()).decode()
        return cls(host=host, repository=repository, headers={"Authorization": f"Basic {proof}"})

    def push(self, tag: str, image: Built) -> None:
        for each in image.blobs.values():
            self.blob(each)
        self.manifest(tag, image.manifest)

    def blob(self, data: bytes) -> None:
        place = self._ask("POST", f"/v2/{self.repository}/blobs/uploads/", b"", 202)
        parts = urlsplit(place)
        target = f"{parts.path}?{parts.query}&digest={digest(data)}"
        self._ask("PUT", target, data, 201, {"Content-Type": "application/octet-stream"})

    def manifest(self, tag: str, data: bytes, media: str = MANIFEST) -> None:
        self._ask("PUT", f"/v2/{self.repository}/manifests/{tag}", data, 201, {"Content-Type": media})

    def _ask(self, method: str, target: str, body: bytes, expected: int, more: Mapping[str, str] | None = None) -> str:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        try:
            connection.request(method, target, body, {**self.headers, **(more or {})})
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == expected, (method, target, answer.status, text)
            return answer.headers.get("Location", "")
        finally:
            connection.close()
