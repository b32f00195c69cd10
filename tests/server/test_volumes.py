"""Volumes over the daemon's real socket; the development engine's machines have no places for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.test_lives import send

from hearth.errors import Code, Conflict, HearthError, InvalidInput, NotFound
from hearth.quota import DEFAULT_QUOTAS
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client, Sandbox

VOLUMES = "/api/v1/volumes"
SANDBOX = "/api/v1/sandboxes/shared"
MOST, MOST_MIB = DEFAULT_QUOTAS.volumes or 0, DEFAULT_QUOTAS.volume_mib or 0


@pytest.fixture(autouse=True)
def clean(client: Client) -> Iterator[None]:
    """No volume is left to the next test."""
    yield
    for volume in client.volumes():
        client.delete_volume(volume.id)


def test_a_volume_is_made_shown_grown_copied_and_deleted(daemon: RunningDaemon, client: Client) -> None:
    made = client.create_volume("data", 16)
    assert (made.name, made.size_mb, made.fs, made.state, made.attached) == ("data", 16, "ext4", "ready", [])
    assert made.allocated_bytes is not None
    assert 0 < made.allocated_bytes < 16 * 1024 * 1024
    assert client.volume("data") == client.volume(made.id)
    assert client.resize_volume("data", 32).size_mb == 32
    assert client.resize_volume("data", 32).size_mb == 32
    copy = client.clone_volume("data", "copy")
    assert (copy.size_mb, [each.name for each in client.volumes()]) == (32, ["data", "copy"])
    client.delete_volume("data")
    with pytest.raises(NotFound):
        client.volume("data")
    with pytest.raises(NotFound):
        client.delete_volume("data")


def test_a_page_of_volumes_leads_to_the_next(daemon: RunningDaemon, client: Client) -> None:
    for name in ("a", "b", "c"):
        client.create_volume(name, 16)
    status, page = send(daemon, "GET", f"{VOLUMES}?limit=2")
    assert (status, [each["name"] for each in page["items"]]) == (200, ["a", "b"])
    status, page = send(daemon, "GET", f"{VOLUMES}?limit=2&cursor={page['next_cursor']}")
    assert (status, [each["name"] for each in page["items"]], page["next_cursor"]) == (200, ["c"], None)


def test_names_are_unique_and_volumes_do_not_shrink(client: Client) -> None:
    client.create_volume("data", 32)
    with pytest.raises(Conflict, match="exists already"):
        client.create_volume("data", 16)
    with pytest.raises(Conflict):
        client.clone_volume("data", "data")
    with pytest.raises(InvalidInput, match="shrink"):
        client.resize_volume("data", 16)
    assert client.volume("data").size_mb == 32


def test_an_owner_has_no_more_than_the_quota(client: Client) -> None:
    client.create_volume("small", 16)
    with pytest.raises(HearthError, match="too large together") as error:
        client.create_volume("more", MOST_MIB)
    assert error.value.code is Code.QUOTA_EXCEEDED
    with pytest.raises(HearthError, match="too large together"):
        client.resize_volume("small", MOST_MIB + 1)
    for number in range(MOST - 1):
        client.create_volume(f"v{number}", 16)
    with pytest.raises(HearthError, match="too many volumes"):
        client.create_volume("more", 16)
    assert sum(each.size_mb for each in client.volumes()) == MOST * 16


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", VOLUMES, {"name": "-x", "size_mb": 16}, "name"),
        ("POST", VOLUMES, {"name": "snapshot1", "size_mb": 16}, "name"),
        ("POST", VOLUMES, {"name": "data", "size_mb": 15}, "size_mb"),
        ("POST", VOLUMES, {"name": "data"}, "size_mb"),
        ("POST", VOLUMES, {"name": "data", "size_mb": 16, "fs": "xfs"}, "fs"),
        ("POST", f"{SANDBOX}/volumes", {"name": "data", "mount": "relative"}, "mount"),
        ("POST", "/api/v1/sandboxes", {"new_volumes": [{"name": "a", "mount": "/a"}]}, "new_volumes[0].size_mb"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(
    daemon: RunningDaemon, sandbox: Sandbox, method: str, path: str, body: Any, field: str
) -> None:
    status, problem = send(daemon, method, path, body)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["details"]


def test_where_machines_take_no_volumes_that_is_said_and_nothing_changes(client: Client, sandbox: Sandbox) -> None:
    client.create_volume("data", 16)
    for refused in (
        lambda: client.attach_volume("shared", "data", "/srv/data"),
        lambda: client.detach_volume("shared", "data"),
        lambda: client.create(name="fresh", volumes=[{"name": "data", "mount": "/srv/data"}]),
        lambda: client.create(name="fresh", new_volumes=[{"name": "new", "size_mb": 16, "mount": "/srv/new"}]),
    ):
        with pytest.raises(Conflict, match="take no volumes"):
            refused()
    assert [each.name for each in client.volumes()] == ["data"]
    assert [each.name for each in client.list()] == ["shared"]


async def test_the_asyncio_client_does_the_same(daemon: RunningDaemon) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        made = await client.create_volume("data", 16)
        assert [each.id for each in await client.volumes()] == [made.id]
        assert (await client.resize_volume("data", 17)).size_mb == 17
        assert (await client.clone_volume("data", "copy")).name == "copy"
        with pytest.raises(NotFound):
            await client.attach_volume("nosuch", "data", "/srv/data")
        for name in ("data", "copy"):
            await client.delete_volume(name)
        with pytest.raises(NotFound):
            await client.volume("data")
