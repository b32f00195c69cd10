"""/api/v1/ports, and ports and publish of a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from hearth.api.limits import PREFIX
from hearth.api.port_operations import (
    LIST_ALL_PORTS,
    LIST_ALL_PUBLICATIONS,
    LIST_PORTS,
    LIST_PUBLICATIONS,
    PUBLISH_PORT,
    UNPUBLISH_PORT,
)
from hearth.api.port_schemas import (
    CertificateView,
    PortList,
    PortView,
    PublicationList,
    PublicationView,
    PublishPort,
)
from hearth.api.schemas import ListPage, Nothing
from hearth.control.ports import Listening, all_ports, ports_of
from hearth.model import Publication
from hearth.server.proxy.entry import read_port
from hearth.server.resource import Call, Reply, bind
from hearth.store.base import PageRequest


async def list_ports(call: Call[Nothing]) -> PortList:
    return await _view(call, [await ports_of(call.daemon.sandboxes, call.user, call.ref)])


async def list_all_ports(call: Call[Nothing]) -> PortList:
    return await _view(call, await all_ports(call.daemon.sandboxes, call.user))


async def publish(call: Call[PublishPort]) -> PublicationView | Reply[PublicationView]:
    wanted = call.input
    published = await call.daemon.publishing.publish(call.user, call.ref, wanted.port, wanted.alias)
    view = _publication_view(call, published.publication)
    return view if published.new else Reply(value=view, status=200)


async def list_publications(call: Call[Nothing]) -> PublicationList:
    found = await call.daemon.publishing.list(call.user, call.ref)
    return PublicationList(items=[_publication_view(call, each) for each in found])


async def list_all_publications(call: Call[ListPage]) -> PublicationList:
    page = await call.daemon.publishing.page(call.user, PageRequest(limit=call.input.limit, cursor=call.input.cursor))
    items = [
        msgspec.structs.replace(_publication_view(call, each.publication), sandbox=each.sandbox, owner=each.owner)
        for each in page.items
    ]
    return PublicationList(items=items, next_cursor=page.next_cursor)


async def unpublish(call: Call[Nothing]) -> Nothing:
    port = read_port(call.request.path_params["port"].encode())
    await call.daemon.publishing.unpublish(call.user, call.ref, port)
    return Nothing()


async def _view(call: Call[Any], listening: Sequence[Listening]) -> PortList:
    items: list[PortView] = []
    for each in listening:
        published: dict[int, Publication] = {}
        if each.ports:
            publications = await call.daemon.publishing.list(call.user, each.sandbox.id)
            published = {publication.port: publication for publication in publications}
        for info in each.ports or ():
            publication = published.get(info.port)
            items.append(
                PortView(
                    sandbox_id=each.sandbox.id,
                    sandbox=each.sandbox.spec.name,
                    port=info.port,
                    address=info.address,
                    process=info.process,
                    pid=info.pid,
                    proxy_url=f"{PREFIX}/sandboxes/{each.sandbox.id}/proxy/{info.port}/",
                    public_url=call.daemon.publishing.address.url(publication.alias) if publication else None,
                )
            )
    return PortList(items=items, asleep=[each.sandbox.spec.name for each in listening if each.ports is None])


def _publication_view(call: Call[Any], publication: Publication) -> PublicationView:
    certificates = call.daemon.publishing.certificates
    certificate = None if certificates is None else certificates.told(publication.alias)
    return PublicationView(
        sandbox_id=publication.sandbox_id,
        port=publication.port,
        alias=publication.alias,
        url=call.daemon.publishing.address.url(publication.alias),
        created_at=publication.created_at,
        certificate=None if certificate is None else CertificateView(**asdict(certificate)),
    )


BOUND = (
    bind(LIST_PORTS, list_ports),
    bind(LIST_ALL_PORTS, list_all_ports),
    bind(PUBLISH_PORT, publish),
    bind(LIST_PUBLICATIONS, list_publications),
    bind(LIST_ALL_PUBLICATIONS, list_all_publications),
    bind(UNPUBLISH_PORT, unpublish),
)
