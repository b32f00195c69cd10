"""Who may publish what under which alias."""

from __future__ import annotations

import pytest
from tests.control.conftest import House, OpenHouse

from hearth.control.publishing import MAX_PER_SANDBOX, PublicAddress, check_alias, proposals
from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.model import SandboxSpec, User, check_name
from hearth.store.base import AliasTaken, PageRequest


async def test_an_alias_is_made_of_the_name_and_the_same_again_is_fine(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="web"))
    publishing = house.daemon.publishing
    first = await publishing.publish(house.admin, "web", 3000)
    assert (first.new, first.publication.alias) == (True, "web")
    assert (await publishing.publish(house.admin, "web", 3000)).new is False
    assert (await publishing.publish(house.admin, "web", 3000, "web")).publication == first.publication
    assert (await publishing.publish(house.admin, "web", 8080)).publication.alias == "web-8080"
    found, sandbox = await publishing.find("web")
    assert (found, sandbox.spec.name) == (first.publication, "web")
    await publishing.unpublish(house.admin, "web", 3000)
    with pytest.raises(NotFound):
        await publishing.find("web")
    with pytest.raises(NotFound):
        await publishing.unpublish(house.admin, "web", 3000)


async def test_what_cannot_be_published_is_refused_by_name(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="web"))
    await house.sandboxes.create(house.admin, SandboxSpec(name="www"))
    publishing = house.daemon.publishing
    await publishing.publish(house.admin, "web", 3000, "shop")
    with pytest.raises(AliasTaken):
        await publishing.publish(house.admin, "www", 3000, "shop")
    with pytest.raises(Conflict, match="published already"):
        await publishing.publish(house.admin, "web", 3000, "store")
    with pytest.raises(InvalidInput, match="port"):
        await publishing.publish(house.admin, "web", 65_536)
    with pytest.raises(NotFound):
        await publishing.publish(User(id="user-eve", name="eve"), "web", 80)
    assert (await publishing.publish(house.admin, "www", 80)).publication.alias == "www-80", "www alone is reserved"


async def test_users_list_their_own_and_administrators_all(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="web"))
    publishing = house.daemon.publishing
    for port in (3000, 80):
        await publishing.publish(house.admin, "web", port)
    assert (await publishing.page(User(id="user-eve", name="eve"), PageRequest())).items == []
    found = (await publishing.page(house.admin, PageRequest())).items
    assert [(each.publication.alias, each.sandbox, each.owner) for each in found] == [
        ("web", "web", "admin"),
        ("web-80", "web", "admin"),
    ]
    assert sorted(await publishing.aliases()) == ["web", "web-80"]


async def test_a_sandbox_has_only_so_many(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="web"))
    for port in range(1, MAX_PER_SANDBOX + 1):
        await house.daemon.publishing.publish(house.admin, "web", port)
    with pytest.raises(Conflict, match="too many"):
        await house.daemon.publishing.publish(house.admin, "web", 5000)


async def test_publications_outlive_the_daemon_and_go_with_their_sandbox(opened: OpenHouse) -> None:
    async with opened() as house:
        await house.sandboxes.create(house.admin, SandboxSpec(name="web"))
        await house.daemon.publishing.publish(house.admin, "web", 3000)
    async with opened() as house:
        assert [each.alias for each in await house.daemon.publishing.list(house.admin, "web")] == ["web"]
        await house.sandboxes.destroy(house.admin, "web")
        with pytest.raises(NotFound):
            await house.daemon.publishing.find("web")


@pytest.mark.parametrize("alias", ["www", "api", "localhost", "xn--bcher-kva", "Web", "-a", "a-", "a.b", "", "a" * 64])
def test_aliases_that_mislead_are_refused(alias: str) -> None:
    with pytest.raises(InvalidInput, match="alias"):
        check_alias(alias)


@pytest.mark.parametrize("name", ["web", "www", "xn--a", "a" * 63, "a" * 47 + "-" + "b" * 15])
def test_proposed_aliases_are_all_acceptable(name: str) -> None:
    found = list(proposals(name, 65_535))
    assert len(set(found)) == len(found) >= 5
    for alias in found:
        check_name(check_alias(alias))


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (PublicAddress(), "/p/web/"),
        (PublicAddress(host="127.0.0.1", port=8080), "http://127.0.0.1:8080/p/web/"),
        (PublicAddress(host="::1", port=80), "http://[::1]/p/web/"),
        (PublicAddress(host="::", port=443, scheme="https", zone="example.org"), "https://web.example.org/"),
        (PublicAddress(host="::", port=8443, scheme="https", zone="example.org"), "https://web.example.org:8443/"),
    ],
)
def test_urls_are_by_host_name_or_by_path(address: PublicAddress, url: str) -> None:
    assert address.url("web") == url
