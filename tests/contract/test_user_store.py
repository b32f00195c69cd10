"""What every store of users and keys promises."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hearth.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from hearth.host.clock import ManualClock
from hearth.model import ApiKey, Sandbox, SandboxSpec, SandboxState, User
from hearth.store.base import PageRequest, Store


def key_of(user: User, clock: ManualClock, *, key_id: str = "key-1", lives_s: float | None = None) -> ApiKey:
    expires_at = None if lives_s is None else clock.now() + timedelta(seconds=lives_s)
    return ApiKey(id=key_id, user_id=user.id, prefix="hk_0123abcd", created_at=clock.now(), expires_at=expires_at)


async def test_a_user_is_found_by_id_and_by_name(store: Store) -> None:
    admin = User(id="user-1", name="root", admin=True)
    await store.users.create(admin)
    assert await store.users.get("user-1") == admin
    assert await store.users.find("root") == admin


@pytest.mark.parametrize("lookup", ["get", "find"])
async def test_an_unknown_user_is_not_found(store: Store, lookup: str) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await getattr(store.users, lookup)("nobody")


@pytest.mark.parametrize("twin", [User(id="user-ada", name="other"), User(id="user-other", name="ada")])
async def test_a_taken_id_or_name_is_a_conflict_and_changes_nothing(store: Store, ada: User, twin: User) -> None:
    with pytest.raises(Conflict):
        await store.users.create(twin)
    assert (await store.users.list()).items == [ada]


async def test_users_are_listed_in_pages_oldest_first(store: Store, clock: ManualClock) -> None:
    for number in range(5):
        await store.users.create(User(id=f"user-{9 - number}", name=f"n{number}"))
        clock.advance(1)
    names, cursor = [], None
    while True:
        page = await store.users.list(PageRequest(limit=2, cursor=cursor))
        names += [user.name for user in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert names == ["n0", "n1", "n2", "n3", "n4"]


@pytest.mark.parametrize(
    ("page", "field"),
    [
        (PageRequest(limit=0), "limit"),
        (PageRequest(limit=1001), "limit"),
        (PageRequest(cursor="no cursor"), "cursor"),
        (PageRequest(cursor="é"), "cursor"),
        (PageRequest(cursor="W10"), "cursor"),
        (PageRequest(cursor=""), "cursor"),
    ],
)
async def test_a_page_that_makes_no_sense_names_its_field(store: Store, page: PageRequest, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await store.users.list(page)
    assert caught.value.field == field


async def test_a_key_authenticates_its_user(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    key = key_of(ada, clock)
    await store.users.add_key(key, "a" * 64)
    assert await store.users.authenticate("a" * 64) == (ada, key)
    assert await store.users.list_keys(ada.id) == [key]
    assert await store.users.list_keys(bob.id) == []


async def test_a_key_needs_its_user(store: Store, clock: ManualClock) -> None:
    with pytest.raises(NotFound):
        await store.users.add_key(key_of(User(id="user-x", name="x"), clock), "a" * 64)


@pytest.mark.parametrize(("key_id", "digest"), [("key-1", "b" * 64), ("key-2", "a" * 64)])
async def test_a_key_or_digest_known_already_is_a_conflict(
    store: Store, ada: User, clock: ManualClock, key_id: str, digest: str
) -> None:
    await store.users.add_key(key_of(ada, clock), "a" * 64)
    with pytest.raises(Conflict):
        await store.users.add_key(key_of(ada, clock, key_id=key_id), digest)
    assert len(await store.users.list_keys(ada.id)) == 1


async def test_unknown_expired_and_revoked_keys_fail_in_the_same_words(
    store: Store, ada: User, clock: ManualClock
) -> None:
    await store.users.add_key(key_of(ada, clock, key_id="key-1", lives_s=10), "a" * 64)
    await store.users.add_key(key_of(ada, clock, key_id="key-2"), "b" * 64)
    clock.advance(9.999)
    assert (await store.users.authenticate("a" * 64))[0] == ada
    clock.advance(0.001)
    await store.users.revoke_key("key-2")
    words = set()
    for digest in ("a" * 64, "b" * 64, "c" * 64):
        with pytest.raises(Unauthenticated) as caught:
            await store.users.authenticate(digest)
        words.add(str(caught.value))
    assert len(words) == 1
    assert [key.revoked_at for key in await store.users.list_keys(ada.id)] == [None, clock.now()]


async def test_a_key_is_revoked_once(store: Store, ada: User, clock: ManualClock) -> None:
    await store.users.add_key(key_of(ada, clock), "a" * 64)
    await store.users.revoke_key("key-1")
    for key_id in ("key-1", "key-unknown"):
        with pytest.raises(NotFound):
            await store.users.revoke_key(key_id)


async def test_a_deleted_user_takes_the_keys_along(store: Store, ada: User, clock: ManualClock) -> None:
    await store.users.add_key(key_of(ada, clock), "a" * 64)
    await store.users.delete(ada.id)
    with pytest.raises(Unauthenticated):
        await store.users.authenticate("a" * 64)
    assert await store.users.list_keys(ada.id) == []
    with pytest.raises(NotFound):
        await store.users.delete(ada.id)


async def test_a_user_who_owns_a_sandbox_cannot_be_deleted(store: Store, ada: User, clock: ManualClock) -> None:
    spec = SandboxSpec(name="web")
    await store.sandboxes.create(
        Sandbox(id="sb-1", owner=ada.id, spec=spec, state=SandboxState.RUNNING, created_at=clock.now())
    )
    with pytest.raises(Conflict, match="owns 1"):
        await store.users.delete(ada.id)
    assert await store.users.get(ada.id) == ada
