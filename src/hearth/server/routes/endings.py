"""/api/v1/endings: what is remembered of destroyed sandboxes."""

from __future__ import annotations

from hearth.api.schemas import ListPage, Nothing
from hearth.api.sleep_schemas import EndingList, EndingView
from hearth.api.snapshot_operations import GET_ENDING, LIST_ENDINGS
from hearth.server.resource import Call, bind
from hearth.server.views import ending_view
from hearth.store.base import PageRequest


async def list_endings(call: Call[ListPage]) -> EndingList:
    wanted = PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    page = await call.daemon.sandboxes.endings(call.user, wanted)
    return EndingList(
        items=[ending_view(each, with_console=False) for each in page.items], next_cursor=page.next_cursor
    )


async def get(call: Call[Nothing]) -> EndingView:
    return ending_view(await call.daemon.sandboxes.ending(call.user, call.ref))


BOUND = (bind(LIST_ENDINGS, list_endings), bind(GET_ENDING, get))
