"""/api/v1/images"""

from __future__ import annotations

from hearth.api.operations import LIST_IMAGES
from hearth.api.schemas import ImageList, Nothing
from hearth.server.resource import Call, bind
from hearth.server.views import image_view


async def list_images(call: Call[Nothing]) -> ImageList:
    return ImageList(items=[image_view(image) for image in await call.daemon.images.list(call.user)])


BOUND = (bind(LIST_IMAGES, list_images),)
