"""/api/v1/images"""

from __future__ import annotations

from hearth.api.operations import LIST_IMAGES
from hearth.api.schemas import ImageList, ImageView, Nothing
from hearth.server.resource import Call, bind


async def list_images(call: Call[Nothing]) -> ImageList:
    images = await call.daemon.images.list(call.user)
    return ImageList(
        items=[
            ImageView(
                id=image.id,
                name=image.name,
                kind=image.kind.value,
                size_bytes=image.size_bytes,
                sha256=image.sha256,
                created_at=image.created_at,
            )
            for image in images
        ]
    )


BOUND = (bind(LIST_IMAGES, list_images),)
