"""The operations on images as values, and how the events of a job that makes one are read; no I/O."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO, TypedDict

import msgspec

from hearth.api.event_operations import FOLLOW_JOB
from hearth.api.event_schemas import EventView, JobProblem, JobProgress, JobView
from hearth.api.image_operations import (
    DELETE_IMAGE,
    GET_IMAGE,
    GOLDEN_IMAGE,
    IMPORT_IMAGE,
    LIST_IMAGES,
    PIN_IMAGE,
    PULL_IMAGE,
    SAVE_IMAGE_OF,
)
from hearth.api.image_schemas import GoldenImage, ImageList, ImageView, ImportImage, ListImages, PullImage, SaveImage
from hearth.api.limits import MAX_LIST_LIMIT, SSE, TAR
from hearth.api.problems import error_from
from hearth.api.provision_schemas import PinCached
from hearth.api.schemas import Nothing, Problem
from hearth.errors import Cancelled, HearthError
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.event_calls import SILENCE_S
from hearth.sdk.file_calls import PIECE_BYTES
from hearth.sdk.http1 import HttpRequest

WHAT = "image"
FINAL = frozenset({"completed", "failed", "cancelled"})


class PullOptions(TypedDict, total=False):
    """What a pull may be told: what to call the image, for which platform (``linux/arm64``), and who asks.

    ``secret`` is one of the caller's secrets that holds USERNAME:PASSWORD; ``insecure`` speaks without TLS where the
    operator permits that; a ``shared`` image is the host's (administrators only).
    """

    name: str
    platform: str
    username: str
    password: str
    secret: str
    insecure: bool
    shared: bool


class GoldenOptions(TypedDict, total=False):
    """What may be said of a golden image that an image is made of: see ``hearth.api.image_schemas.GoldenImage``."""

    image_type: str
    checksum: str
    partition: int
    shared: bool


class ImportOptions(TypedDict, total=False):
    """What an import may be told, as for a pull."""

    platform: str
    shared: bool


def page(cursor: str | None) -> Call[ImageList]:
    return call_of(LIST_IMAGES, ListImages(limit=MAX_LIST_LIMIT, cursor=cursor))


def get(ref: str) -> Call[ImageView]:
    return call_of(GET_IMAGE, Nothing(), ref=ref, what=WHAT)


def delete(ref: str) -> Call[Nothing]:
    return call_of(DELETE_IMAGE, Nothing(), ref=ref, what=WHAT, timeout_s=LONG_S)


def save(sandbox: str, name: str) -> Call[ImageView]:
    return call_of(SAVE_IMAGE_OF, checked(SaveImage, {"sandbox": sandbox, "name": name}), timeout_s=LONG_S)


def pull(reference: str, options: PullOptions) -> Call[JobView]:
    return call_of(PULL_IMAGE, checked(PullImage, {"reference": reference, **options}))


def pin(ref: str, *, pinned: bool) -> Call[ImageView]:
    return call_of(PIN_IMAGE, PinCached(pinned=pinned), ref=ref, what=WHAT)


def golden(image: str, name: str, options: GoldenOptions) -> Call[JobView]:
    source = "image_url" if ":" in image else "key"
    return call_of(GOLDEN_IMAGE, checked(GoldenImage, {source: image, "name": name, **options}))


def import_(archive: BinaryIO, name: str, options: ImportOptions) -> Call[JobView]:
    call = call_of(IMPORT_IMAGE, checked(ImportImage, {"name": name, **options}), timeout_s=LONG_S)
    length = size_of(archive)
    return replace(call, request=replace(call.request, streamed=True, length=length, content_type=TAR))


def pieces_of(archive: BinaryIO) -> Iterator[bytes]:
    """Give what is left in a file, piece by piece."""
    while piece := archive.read(PIECE_BYTES):
        yield piece


def size_of(archive: BinaryIO) -> int | None:
    """Tell how many bytes are left in a file; None where only reading tells, as of a pipe."""
    try:
        status = os.fstat(archive.fileno())
        return status.st_size - archive.tell() if archive.seekable() else None
    except (OSError, ValueError):
        return None


def follow(job: str) -> HttpRequest:
    return call_of(FOLLOW_JOB, Nothing(), ref=job, what="job", timeout_s=SILENCE_S, accept=SSE).request


def progress_in(event: EventView) -> JobProgress | None:
    """Give how far a job is by one of its events; None where the event does not say.

    Raises:
        HearthError: the job has failed, with the job's own error.
        Cancelled: it was cancelled.
    """
    if event.type == "job.progress":
        return msgspec.convert(
            {name: value for name, value in event.data.items() if name in JobProgress.__struct_fields__}, JobProgress
        )
    if "job_id" in event.data:  # how the job was when it was first looked at
        job = msgspec.convert(event.data, JobView)
        if job.status in ("failed", "cancelled"):
            raise error_of(job)
        return job.progress
    return None


def has_ended(event: EventView) -> bool:
    """Tell whether a job's event is its last."""
    return event.type.removeprefix("job.") in FINAL


def error_of(job: JobView) -> HearthError:
    """Give the error that a job ended with."""
    if job.error is None or job.status == "cancelled":
        return Cancelled("the job was cancelled", details=job.job_id)
    return problem_error(job.error)


def problem_error(problem: JobProblem) -> HearthError:
    """Give the error that a job tells of."""
    said = Problem(
        error=problem.error, code=problem.code, details=problem.details, resolution=problem.resolution, request_id=""
    )
    error = error_from(said)
    error.field = problem.field
    return error
