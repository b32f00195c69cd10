"""What is sent to whoever wants to be called when a job changes, as values: hooks, deliveries, bodies and signatures.

The form is that of Standard Webhooks (standardwebhooks.com), whose libraries check it in a line.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

import msgspec

from hearth.model import Job, JobState

STARTED, PROGRESS = "job.running", "job.progress"
ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
SECRET_PREFIX = "whsec_"  # noqa: S105  how a secret begins that is base64
SECRET_MIN_BYTES = 24
"""As Standard Webhooks asks for: 192 bits."""
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 3600.0
TOLD_OF_RESULT = ("host", "volume_path", "volume_format", "cache_hit", "strategy", "image_key")
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Who is called about a job. ``with_progress``: at its starts and steps too, not at its end alone."""

    id: str
    job_id: str
    url: str = field(repr=False)
    with_progress: bool = False
    created_at: datetime
    disabled_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event for one hook; ``number`` counts a hook's from 0, and none is tried before those ahead of it ended."""

    id: str
    webhook_id: str
    number: int
    kind: str
    body: str = field(repr=False)
    created_at: datetime
    next_at: datetime
    attempts: int = 0
    status: int | None = None
    error: str | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None
    ended_at: datetime | None = None


def kind_of(state: JobState) -> str | None:
    """Give the kind of event for a job that has come into a state; None for one that nobody is told of."""
    if state is JobState.RUNNING or state.is_final:
        return f"job.{state.value}"
    return None


def body_of(event_id: str, kind: str, job: Job, at: datetime) -> str:
    """Give what is sent: one JSON object; how the job is stands under ``data``."""
    data: dict[str, object] = {
        "job_id": job.id,
        "kind": job.kind,
        "subject": job.subject,
        "status": "running" if job.state is JobState.UNDOING else job.state.value,
        "stage": job.step,
        "attempts": job.attempt,
        "correlation_id": job.input.get("correlation_id"),
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
    if job.error is not None:
        data["error"] = {
            "code": job.error.code.value,
            "error": job.error.brief,
            "details": job.error.details,
            "resolution": job.error.resolution,
        }
    data.update({name: job.result[name] for name in TOLD_OF_RESULT if job.result is not None and name in job.result})
    return msgspec.json.encode({"id": event_id, "type": kind, "created_at": at, "data": data}).decode()


def read_secrets(text: str) -> Sequence[bytes]:
    """Read the secrets to sign with: one, or two with a blank between them while one is being replaced.

    Raises:
        ValueError: one is too short or no base64; never repeats it.
    """
    secrets = []
    for word in text.split():
        try:
            secret = base64.b64decode(word.removeprefix(SECRET_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError(f"what follows {SECRET_PREFIX} is no base64") from error
        if not word.startswith(SECRET_PREFIX) or len(secret) < SECRET_MIN_BYTES:
            raise ValueError(f"a secret is {SECRET_PREFIX} and the base64 of {SECRET_MIN_BYTES} bytes or more")
        secrets.append(secret)
    if not secrets:
        raise ValueError("there is none")
    return secrets


def headers_of(secrets: Sequence[bytes], delivery: Delivery, timestamp_s: int) -> Mapping[str, str]:
    """Give the headers by which a receiver knows who sent it, when, and whether it has seen it before."""
    signed = f"{delivery.id}.{timestamp_s}.{delivery.body}".encode()
    signatures = [base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode() for secret in secrets]
    return {
        ID_HEADER: delivery.id,
        TIME_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: " ".join(f"v1,{signature}" for signature in signatures),
    }


def pause_s(attempts: int, asked_s: float | None = None) -> float:
    """Give how long to wait after so many tries: doubling, drawn between half of it and all, never over an hour."""
    longest_s: float = min(FIRST_PAUSE_S * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE_S)
    drawn_s = longest_s * random.uniform(0.5, 1.0)  # noqa: S311  nobody has to be unable to guess it
    return drawn_s if asked_s is None else max(drawn_s, min(asked_s, LONGEST_PAUSE_S))


def origin_of(url: str) -> str:
    """Give the server of a URL, which is spared and bounded as one: ``https://example.org:443``."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or PORTS.get(parts.scheme, 0)}"
