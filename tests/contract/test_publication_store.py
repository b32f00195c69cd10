"""What every store of publications promises."""

from __future__ import annotations

import asyncio

import pytest

from hearth.errors import Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import Publication, Sandbox, SandboxSpec, SandboxState, User
from hearth.store.base import AliasTaken, PageRequest, Store


@pytest.fixture
async def boxes(store: Store, clock: ManualClock, ada: User) -> tuple[str, str]:
    """The ids of two sandboxes of ada's."""
    for name in ("web", "db"):
        spec = SandboxSpec(name=name)
        state = SandboxState.RUNNING
        made = Sandbox(id=f"sb-{name}", owner=ada.id, spec=spec, state=state, created_at=clock.now())
        await store.sandboxes.create(made)
    return "sb-web", "sb-db"


def publication(clock: ManualClock, alias: str, sandbox_id: str, port: int = 3000) -> Publication:
    return Publication(alias=alias, sandbox_id=sandbox_id, port=port, created_at=clock.now())


async def test_a_publication_reads_back_by_alias_and_by_sandbox(
    store: Store, clock: ManualClock, boxes: tuple[str, str]
) -> None:
    made = [publication(clock, "zebra", boxes[0], 80), publication(clock, "ant", boxes[0], 3000)]
    other = publication(clock, "db", boxes[1], 80)
    for each in (made[1], other, made[0]):
        await store.publications.create(each)
    assert await store.publications.find("zebra") == made[0]
    assert await store.publications.of_sandbox(boxes[0]) == made
    assert await store.publications.of_sandbox("sb-none") == []
    with pytest.raises(NotFound):
        await store.publications.find("zebr")


async def test_an_alias_stands_for_one_port_and_a_port_has_one_alias(
    store: Store, clock: ManualClock, boxes: tuple[str, str]
) -> None:
    await store.publications.create(publication(clock, "web", boxes[0]))
    with pytest.raises(AliasTaken, match="web") as refused:
        await store.publications.create(publication(clock, "web", boxes[1]))
    assert refused.value.field == "alias"
    with pytest.raises(Conflict, match="3000") as again:
        await store.publications.create(publication(clock, "web-2", boxes[0]))
    assert not isinstance(again.value, AliasTaken)
    await store.publications.create(publication(clock, "web-3", boxes[0], 3001))


async def test_of_many_that_want_one_alias_one_gets_it(
    store: Store, clock: ManualClock, boxes: tuple[str, str]
) -> None:
    wanted = [publication(clock, "web", boxes[0], port) for port in range(1, 9)]
    results = await asyncio.gather(*map(store.publications.create, wanted), return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, AliasTaken) for result in results) == 7


async def test_a_publication_needs_its_sandbox_and_goes_with_it(
    store: Store, clock: ManualClock, boxes: tuple[str, str]
) -> None:
    with pytest.raises(NotFound, match="sandbox"):
        await store.publications.create(publication(clock, "web", "sb-none"))
    await store.publications.create(publication(clock, "web", boxes[0]))
    await store.publications.create(publication(clock, "db", boxes[1]))
    await store.sandboxes.delete(boxes[0], (SandboxState.RUNNING,))
    with pytest.raises(NotFound):
        await store.publications.find("web")
    assert (await store.publications.find("db")).sandbox_id == boxes[1]


async def test_what_is_taken_away_gives_its_alias_free(
    store: Store, clock: ManualClock, boxes: tuple[str, str]
) -> None:
    made = publication(clock, "web", boxes[0])
    await store.publications.create(made)
    with pytest.raises(NotFound):
        await store.publications.delete(boxes[0], 3001)
    assert await store.publications.delete(boxes[0], 3000) == made
    with pytest.raises(NotFound):
        await store.publications.delete(boxes[0], 3000)
    await store.publications.create(publication(clock, "web", boxes[1]))


async def test_all_are_listed_oldest_first_with_the_names_they_belong_to(
    store: Store, clock: ManualClock, boxes: tuple[str, str], ada: User
) -> None:
    eve = User(id="user-eve", name="eve")
    await store.users.create(eve)
    spec, state = SandboxSpec(name="hers"), SandboxState.RUNNING
    await store.sandboxes.create(Sandbox(id="sb-hers", owner=eve.id, spec=spec, state=state, created_at=clock.now()))
    for alias, sandbox_id, port in [("zebra", boxes[0], 80), ("ant", boxes[0], 81), ("eel", "sb-hers", 80)]:
        await store.publications.create(publication(clock, alias, sandbox_id, port))
    clock.advance(1)
    await store.publications.create(publication(clock, "aardvark", boxes[1]))

    everybody = await store.publications.list(None)
    assert [(each.publication.alias, each.sandbox, each.owner) for each in everybody.items] == [
        ("ant", "web", ada.name),
        ("eel", "hers", "eve"),
        ("zebra", "web", ada.name),
        ("aardvark", "db", ada.name),
    ]
    assert everybody.next_cursor is None
    first = await store.publications.list(ada.id, page=PageRequest(limit=2))
    rest = await store.publications.list(ada.id, page=PageRequest(limit=2, cursor=first.next_cursor))
    assert [each.publication.alias for each in [*first.items, *rest.items]] == ["ant", "zebra", "aardvark"]
    assert rest.next_cursor is None
    assert (await store.publications.list("user-none")).items == []
