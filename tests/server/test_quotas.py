"""Quotas over the daemon's real socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import Forbidden, HearthError, InvalidInput, NotFound, QuotaExceeded
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client


@pytest.fixture
def ada(client: Client, daemon: RunningDaemon) -> Iterator[Client]:
    """The client of a plain user, who is gone afterwards."""
    with Client(daemon.url, client.users.create("ada").secret) as made:
        yield made
        for sandbox in made.list():
            sandbox.destroy()
        for volume in made.volumes():
            made.delete_volume(volume.id)
    client.users.delete("ada")


def test_a_user_gets_no_more_than_an_administrator_allows(client: Client, ada: Client) -> None:
    allowed = client.users.set_quotas("ada", sandboxes=2, volume_mb=None, images=0)
    assert (allowed.sandboxes.limit, allowed.volume_mb.limit, allowed.volumes.limit) == (2, None, 32)

    def create(number: int) -> str:
        try:
            return ada.create(name=f"s{number}").name
        except QuotaExceeded as refused:
            return refused.details

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(create, range(6)))
    assert sum(result.startswith("s") for result in results) == 2
    assert sum("quota sandboxes: 2 of 2 are used" in result for result in results) == 4
    usage = ada.users.usage()
    assert (usage.user, usage.sandboxes.used, usage.sandboxes.limit, usage.memory_mb.used) == ("ada", 2, 2, 512)
    assert usage.disk_mb.used is not None
    again = ada.create(name=next(result for result in results if result.startswith("s")))
    assert again.view.state == "running"


def test_only_administrators_say_how_much(client: Client, ada: Client) -> None:
    with pytest.raises(Forbidden):
        ada.users.set_quotas("me", sandboxes=None)
    with pytest.raises(NotFound):
        ada.users.set_quotas("admin", sandboxes=0)
    with pytest.raises(NotFound):
        ada.users.usage("admin")


def test_what_makes_no_sense_is_refused_and_named(client: Client, ada: Client) -> None:
    with pytest.raises(InvalidInput):
        client.users.set_quotas("ada", sandboxes=-1)
    with pytest.raises(HearthError, match="unknown quota"):
        client.users.set_quotas("ada", reset=["beer"])
    client.users.set_quotas("ada", volumes=0)
    with pytest.raises(QuotaExceeded, match="too many volumes"):
        ada.create_volume("data", 16)
    client.users.set_quotas("ada", reset=["volumes"])
    ada.create_volume("data", 16)


async def test_the_asynchronous_client_does_the_same(daemon: RunningDaemon, ada: Client) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        assert (await client.users.set_quotas("ada", cpus=3)).cpus.limit == 3
        assert (await client.users.usage("ada")).cpus.limit == 3
