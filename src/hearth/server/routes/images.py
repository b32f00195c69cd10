"""/api/v1/images: list, show, delete, and the ways they come here."""

from __future__ import annotations

from hearth.api.event_schemas import JobView
from hearth.api.image_operations import (
    DELETE_IMAGE,
    GET_IMAGE,
    GOLDEN_IMAGE,
    IMPORT_IMAGE,
    LIST_IMAGES,
    PIN_IMAGE,
    PREFETCH_IMAGE,
    PULL_IMAGE,
    SAVE_IMAGE_OF,
)
from hearth.api.image_schemas import (
    GoldenImage,
    ImageList,
    ImageView,
    ImportImage,
    ListImages,
    PrefetchImage,
    PullImage,
    SaveImage,
)
from hearth.api.limits import IDEMPOTENCY_HEADER
from hearth.api.provision_schemas import PinCached
from hearth.api.schemas import Nothing
from hearth.control.golden_images import GoldenOrder
from hearth.control.image_work import Pull
from hearth.errors import InvalidInput
from hearth.image.golden.entries import Entry
from hearth.image.oci.documents import parse_platform
from hearth.image.oci.reference import parse_reference
from hearth.image.oci.registry import Credentials
from hearth.model import check_name
from hearth.server.job_views import job_view
from hearth.server.resource import Call, bind
from hearth.server.uploads import announced_size, incoming
from hearth.server.views import golden_view, image_view
from hearth.store.base import PageRequest
from hearth.tenancy import SecretUse

CREDENTIALS = "CREDENTIALS"


async def list_images(call: Call[ListImages]) -> ImageList:
    asked = call.input
    page = await call.daemon.golden_images.list(call.user, PageRequest(limit=asked.limit, cursor=asked.cursor))
    items = [golden_view(each) if isinstance(each, Entry) else image_view(each) for each in page.items]
    return ImageList(items=items, next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> ImageView:
    if (entry := await call.daemon.golden_images.find(call.user, call.ref)) is not None:
        return golden_view(entry)
    return image_view(await call.daemon.images.get(call.user, call.ref))


async def delete(call: Call[Nothing]) -> Nothing:
    if (entry := await call.daemon.golden_images.find(call.user, call.ref)) is not None:
        await call.daemon.golden_images.delete(entry)
    else:
        await call.daemon.image_upkeep.delete(call.user, call.ref)
    return Nothing()


async def pin(call: Call[PinCached]) -> ImageView:
    return golden_view(await call.daemon.golden_images.pin(call.user, call.ref, is_pinned=call.input.pinned))


async def prefetch(call: Call[PrefetchImage]) -> JobView:
    asked = call.input
    order = GoldenOrder(image_url=asked.image_url, image_type=asked.image_type, checksum=asked.checksum)
    return job_view(call.daemon, await call.daemon.golden_images.fetch(call.user, order))


async def pull(call: Call[PullImage]) -> JobView:
    asked = call.input
    reference = parse_reference(asked.reference)
    wanted = Pull(
        reference=reference,
        platform=parse_platform(asked.platform),
        credentials=await _credentials(call),
        insecure=asked.insecure,
    )
    name = asked.name or check_name(reference.short_name)
    job = await call.daemon.image_jobs.pull(call.user, wanted, name=name, shared=asked.shared)
    return job_view(call.daemon, job)


async def import_(call: Call[ImportImage]) -> JobView:
    asked, request = call.input, call.request
    platform = parse_platform(asked.platform)
    if IDEMPOTENCY_HEADER in request.headers:
        raise InvalidInput(
            f"invalid {IDEMPOTENCY_HEADER}",
            details="an archive is not kept to be compared",
            resolution="leave the header out: the same archive under the same name gives the same image",
            field=IDEMPOTENCY_HEADER,
        )
    async with call.daemon.image_jobs.upload(call.user, name=asked.name, shared=asked.shared) as upload:
        if (announced := request.headers.get("content-length")) is not None:
            upload.expect(announced_size(announced))
        async for piece in incoming(request.receive):
            await upload.write(piece)
        return job_view(call.daemon, await call.daemon.image_jobs.begin_import(upload, platform))


async def golden(call: Call[GoldenImage]) -> JobView:
    asked = call.input
    order = GoldenOrder(
        image_url=asked.image_url,
        key=asked.key,
        image_type=asked.image_type,
        checksum=asked.checksum,
        partition=asked.partition,
    )
    job = await call.daemon.golden_images.make(call.user, order, name=asked.name, shared=asked.shared)
    return job_view(call.daemon, job)


async def save(call: Call[SaveImage]) -> ImageView:
    return image_view(await call.daemon.sandboxes.save_image(call.user, call.input.sandbox, call.input.name))


async def _credentials(call: Call[PullImage]) -> Credentials | None:
    """Give what proves to the registry who pulls.

    Raises:
        InvalidInput: half of it is given, or two things that say the same.
    """
    asked = call.input
    username, password = asked.username, asked.password
    if asked.secret is not None:
        if password is not None:
            raise _contradiction("secret", "it stands for a password, and one is given, too")
        use = SecretUse(name=asked.secret, env=CREDENTIALS)
        password = (await call.daemon.secrets.environment(call.user, [use]))[CREDENTIALS].strip()
        if username is None:
            username, _, password = password.partition(":")
    if username is None and password is None:
        return None
    if not username or not password:
        raise _contradiction("secret" if asked.secret else "username", "a username and a password belong together")
    return Credentials(username=username, password=password)


def _contradiction(field: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"invalid {field}",
        details=f"{field}: {why}",
        resolution="give username and password, or a secret that holds USERNAME:PASSWORD",
        field=field,
    )


BOUND = (
    bind(LIST_IMAGES, list_images),
    bind(PULL_IMAGE, pull),  # these four before what takes any word for a name
    bind(IMPORT_IMAGE, import_),
    bind(GOLDEN_IMAGE, golden),
    bind(SAVE_IMAGE_OF, save),
    bind(PREFETCH_IMAGE, prefetch),
    bind(GET_IMAGE, get),
    bind(PIN_IMAGE, pin),
    bind(DELETE_IMAGE, delete),
)
