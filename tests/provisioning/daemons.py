"""Daemons that provision: how they are started, asked as strangers would, and looked at for what they left."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from typing import Any

from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.api.event_schemas import JobView
from hearth.bench.s3_server import S3Server
from hearth.config import DataDirectory
from hearth.sdk.client import Client

DEADLINE_S = 120.0
PAUSE_S = 0.01
FINAL = ("completed", "failed", "cancelled")


class UnixConnection(HTTPConnection):
    """HTTP over a daemon's own socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.connect(self._path)


def ask(daemon: RunningDaemon, method: str, path: str, body: Mapping[str, object] | bytes) -> tuple[int, Any, str]:
    """Send a request as it is, checked by nobody on this side; gives status, body and Retry-After."""
    connection = UnixConnection(str(daemon.data.api_socket))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {daemon.token}", "content-type": "application/json"}
    with contextlib.closing(connection):
        connection.request(method, f"/api/v1{path}", body=data, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get("retry-after", "")


def order(url: str, name: str = "vm", **changes: object) -> dict[str, object]:
    """Give the body of a request for a volume of 32 MiB."""
    return {"image_url": url, "volume_name": name, "volume_size_gb": 1 / 32, "image_type": "qcow2", **changes}


def ended(client: Client, job_id: str) -> JobView:
    """Wait for the end of a job and give it."""
    return wait_for(client, job_id, *FINAL)


def wait_for(client: Client, job_id: str, *statuses: str) -> JobView:
    deadline_s = time.monotonic() + DEADLINE_S
    while (job := client.events.job(job_id)).status not in statuses:
        assert time.monotonic() < deadline_s, f"{job_id} is {job.status} at {job.progress}"
        time.sleep(PAUSE_S)
    return job


def wait_for_stage(client: Client, job_id: str, stage: str) -> None:
    """Wait until a job is at a stage."""
    deadline_s = time.monotonic() + DEADLINE_S
    while (job := client.events.job(job_id)).progress.stage != stage:
        assert time.monotonic() < deadline_s and job.status not in FINAL, f"{job_id} is {job.status} at {job.progress}"
        time.sleep(PAUSE_S)


def what_is_left(data: DataDirectory, *, parts: bool = False) -> list[str]:
    """Tell what lies about below a data directory: volumes, bases, images, unfinished work; parts only if asked for."""
    places = {
        "volumes": data.golden_volumes / "volumes",
        "bases": data.golden_volumes / "bases",
        "images": data.golden_images / "images",
    }
    if parts:
        places["parts"] = data.golden_images / "parts"
    found = [f"{kind}/{path.name}" for kind, place in places.items() for path in place.iterdir()]
    return sorted(found)


def credentials(server: S3Server, bucket: str, endpoint: str | None = None) -> Sequence[str]:
    """Give words before a daemon's command that let it use an object storage."""
    return (
        "env",
        f"MINIO_ENDPOINT={endpoint or server.endpoint}",
        f"MINIO_ACCESS_KEY={server.access_key}",
        f"MINIO_SECRET_KEY={server.secret_key}",
        f"MINIO_BUCKET={bucket}",
    )


@contextlib.contextmanager
def provisioning_daemon(*words: str, prefix: Sequence[str] = ()) -> Iterator[RunningDaemon]:
    """Run a daemon with a data directory of its own."""
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *words, prefix=prefix) as running:
            yield running
