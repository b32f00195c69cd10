"""What every store of users' templates promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hearth.errors import Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.store.base import PageRequest, Store
from hearth.store.template_store import MAX_TEMPLATES, Template

SPEC = {"image": "debian", "cpus": 2, "env": {"A": "ä\n"}, "init": ["true", ["a", "b"]], "idle_pause_s": 1.5}


def template(owner: User, name: str, clock: ManualClock, *, number: int = 0) -> Template:
    now = clock.now()
    template_id = f"tmpl-{owner.name}-{name}-{number}"
    return Template(id=template_id, owner=owner.id, name=name, spec=SPEC, created_at=now, updated_at=now)


async def test_a_template_reads_back_by_id_and_by_name(store: Store, ada: User, clock: ManualClock) -> None:
    made = template(ada, "web", clock)
    await store.templates.create(made)
    assert await store.templates.resolve(ada.id, "web") == made
    assert await store.templates.resolve(ada.id, made.id) == made
    assert await store.templates.resolve(None, "web") == made


async def test_templates_are_their_owners(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    made, other = template(ada, "web", clock), template(bob, "web", clock)
    await store.templates.create(made)
    for reference in ("web", made.id):
        with pytest.raises(NotFound):
            await store.templates.resolve(bob.id, reference)
    await store.templates.create(other)
    assert await store.templates.resolve(bob.id, "web") == other
    with pytest.raises(Conflict, match="several owners"):
        await store.templates.resolve(None, "web")
    assert (await store.templates.list(bob.id)).items == [other]
    assert len((await store.templates.list(None)).items) == 2
    with pytest.raises(NotFound):
        await store.templates.create(template(User(id="user-x", name="x"), "web", clock))


async def test_a_name_is_there_once(store: Store, ada: User, clock: ManualClock) -> None:
    await store.templates.create(template(ada, "web", clock))
    with pytest.raises(Conflict) as taken:
        await store.templates.create(template(ada, "web", clock, number=1))
    assert taken.value.field == "name"
    other = template(ada, "other", clock)
    await store.templates.create(other)
    with pytest.raises(Conflict):
        await store.templates.replace(replace(other, name="web"), known=other.updated_at)
    assert await store.templates.resolve(ada.id, "other") == other


async def test_a_change_replaces_what_its_maker_has_seen(store: Store, ada: User, clock: ManualClock) -> None:
    made = template(ada, "web", clock)
    await store.templates.create(made)
    clock.advance(1)
    changed = replace(made, name="site", spec={"cpus": 3}, updated_at=clock.now())
    assert await store.templates.replace(changed, known=made.updated_at) == changed
    assert await store.templates.resolve(ada.id, "site") == changed
    with pytest.raises(NotFound):
        await store.templates.resolve(ada.id, "web")
    clock.advance(1)
    with pytest.raises(Conflict, match="meanwhile"):
        await store.templates.replace(replace(made, updated_at=clock.now()), known=made.updated_at)
    with pytest.raises(NotFound):
        await store.templates.replace(replace(made, id="tmpl-none"), known=made.updated_at)
    assert await store.templates.resolve(ada.id, "site") == changed


async def test_a_deleted_template_is_gone_and_its_name_free(store: Store, ada: User, clock: ManualClock) -> None:
    made = template(ada, "web", clock)
    await store.templates.create(made)
    await store.templates.delete(made.id)
    with pytest.raises(NotFound):
        await store.templates.delete(made.id)
    await store.templates.create(template(ada, "web", clock, number=1))


async def test_a_list_comes_in_pages(store: Store, ada: User, clock: ManualClock) -> None:
    for name in "edcba":
        await store.templates.create(template(ada, name, clock))
        clock.advance(1)
    first = await store.templates.list(ada.id, page=PageRequest(limit=3))
    second = await store.templates.list(ada.id, page=PageRequest(limit=3, cursor=first.next_cursor))
    assert [each.name for each in (*first.items, *second.items)] == list("edcba")
    assert second.next_cursor is None


async def test_there_is_an_end_to_templates(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    for number in range(MAX_TEMPLATES):
        await store.templates.create(template(ada, f"t{number}", clock))
    with pytest.raises(Conflict, match="too many"):
        await store.templates.create(template(ada, "more", clock))
    with pytest.raises(NotFound):
        await store.templates.resolve(ada.id, "more")
    await store.templates.create(template(bob, "more", clock))


async def test_templates_go_with_their_owner(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    await store.templates.create(template(ada, "web", clock))
    kept = template(bob, "web", clock)
    await store.templates.create(kept)
    await store.users.delete(ada.id)
    assert (await store.templates.list(None)).items == [kept]
