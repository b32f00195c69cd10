"""What every store of users and keys promises."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from hearth.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from hearth.host.clock import ManualClock
from hearth.model import ApiKey, Sandbox, SandboxSpec, SandboxState, User
from hearth.store.base import PageRequest, Store
from hearth.store.user_store import KEYS_KEPT_FOR, MAX_KEYS, NewKey, UserChanges
from hearth.tenancy import KeyKind, KeyScope


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
    await store.users.add_key(NewKey(key=key, digest="a" * 64))
    assert await store.users.authenticate("a" * 64) == (ada, key)
    assert await store.users.list_keys(ada.id) == [key]
    assert await store.users.list_keys(bob.id) == []


async def test_a_key_needs_its_user(store: Store, clock: ManualClock) -> None:
    with pytest.raises(NotFound):
        await store.users.add_key(NewKey(key=key_of(User(id="user-x", name="x"), clock), digest="a" * 64))


@pytest.mark.parametrize(("key_id", "digest"), [("key-1", "b" * 64), ("key-2", "a" * 64)])
async def test_a_key_or_digest_known_already_is_a_conflict(
    store: Store, ada: User, clock: ManualClock, key_id: str, digest: str
) -> None:
    await store.users.add_key(NewKey(key=key_of(ada, clock), digest="a" * 64))
    with pytest.raises(Conflict):
        await store.users.add_key(NewKey(key=key_of(ada, clock, key_id=key_id), digest=digest))
    assert len(await store.users.list_keys(ada.id)) == 1


async def test_unknown_expired_and_revoked_keys_fail_in_the_same_words(
    store: Store, ada: User, clock: ManualClock
) -> None:
    await store.users.add_key(NewKey(key=key_of(ada, clock, key_id="key-1", lives_s=10), digest="a" * 64))
    await store.users.add_key(NewKey(key=key_of(ada, clock, key_id="key-2"), digest="b" * 64))
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
    await store.users.add_key(NewKey(key=key_of(ada, clock), digest="a" * 64))
    await store.users.revoke_key("key-1")
    for key_id in ("key-1", "key-unknown"):
        with pytest.raises(NotFound):
            await store.users.revoke_key(key_id)


async def test_a_deleted_user_takes_the_keys_along(store: Store, ada: User, clock: ManualClock) -> None:
    await store.users.add_key(NewKey(key=key_of(ada, clock), digest="a" * 64))
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


def new_key(user: User, clock: ManualClock, number: int, *, lives_s: float | None = None) -> NewKey:
    return NewKey(key=key_of(user, clock, key_id=f"key-{number}", lives_s=lives_s), digest=f"{number:064x}")


async def test_a_user_is_changed_and_keeps_what_is_not_given(store: Store, ada: User) -> None:
    assert await store.users.change(ada.id, UserChanges(name="eve")) == User(id=ada.id, name="eve")
    assert await store.users.change(ada.id, UserChanges(admin=True)) == User(id=ada.id, name="eve", admin=True)
    assert await store.users.find("eve") == User(id=ada.id, name="eve", admin=True)


async def test_a_name_that_is_taken_changes_nothing(store: Store, ada: User, bob: User) -> None:
    with pytest.raises(Conflict):
        await store.users.change(ada.id, UserChanges(name="bob", admin=True))
    assert await store.users.get(ada.id) == ada
    with pytest.raises(NotFound):
        await store.users.change("user-x", UserChanges(name="x"))


async def test_there_is_always_an_administrator(store: Store, ada: User, bob: User) -> None:
    await store.users.change(ada.id, UserChanges(admin=True))
    with pytest.raises(Conflict, match="administrator"):
        await store.users.change(ada.id, UserChanges(admin=False))
    with pytest.raises(Conflict, match="administrator"):
        await store.users.delete(ada.id)
    await store.users.change(bob.id, UserChanges(admin=True))
    await store.users.delete(ada.id)


async def test_all_that_is_known_of_a_key_comes_back(store: Store, ada: User, clock: ManualClock) -> None:
    key = replace(key_of(ada, clock, lives_s=60), name="ci", kind=KeyKind.HMAC, scope=KeyScope.EXEC, sandbox_id="sb-1")
    await store.users.add_key(NewKey(key=key, digest="a" * 64, sealed=b"\0sealed", sealed_by="master"))
    assert await store.users.list_keys(ada.id) == [key]
    signing = await store.users.signing_key(key.id)
    assert (signing.user, signing.key, signing.sealed, signing.sealed_by) == (ada, key, b"\0sealed", "master")
    clock.advance(60)
    with pytest.raises(Unauthenticated):
        await store.users.signing_key(key.id)


async def test_a_key_that_is_sent_signs_nothing(store: Store, ada: User, clock: ManualClock) -> None:
    await store.users.add_key(new_key(ada, clock, 1))
    for key_id in ("key-1", "key-2"):
        with pytest.raises(Unauthenticated):
            await store.users.signing_key(key_id)


async def test_a_keys_last_use_is_noted(store: Store, ada: User, clock: ManualClock) -> None:
    await store.users.add_key(new_key(ada, clock, 1))
    clock.advance(5)
    await store.users.touch_key("key-1")
    await store.users.touch_key("key-unknown")
    assert [key.last_used_at for key in await store.users.list_keys(ada.id)] == [clock.now()]


async def test_a_key_is_replaced_and_the_old_one_ends_later_never_later_than_it_would(
    store: Store, ada: User, clock: ManualClock
) -> None:
    await store.users.add_key(new_key(ada, clock, 1))
    await store.users.add_key(new_key(ada, clock, 2, lives_s=10))
    ends_at = clock.now() + timedelta(seconds=30)
    await store.users.replace_key("key-1", new_key(ada, clock, 3), ends_at=ends_at)
    await store.users.replace_key("key-2", new_key(ada, clock, 4), ends_at=ends_at)
    ends = {key.id: key.expires_at for key in await store.users.list_keys(ada.id)}
    assert ends == {"key-1": ends_at, "key-2": clock.now() + timedelta(seconds=10), "key-3": None, "key-4": None}
    clock.advance(30)
    with pytest.raises(Unauthenticated):
        await store.users.authenticate(f"{1:064x}")
    assert (await store.users.authenticate(f"{3:064x}"))[0] == ada


async def test_only_a_valid_key_of_the_same_user_is_replaced(
    store: Store, ada: User, bob: User, clock: ManualClock
) -> None:
    await store.users.add_key(new_key(ada, clock, 1))
    await store.users.add_key(new_key(ada, clock, 2))
    await store.users.revoke_key("key-2")
    for old, owner in (("key-1", bob), ("key-2", ada), ("key-9", ada)):
        with pytest.raises(NotFound):
            await store.users.replace_key(old, new_key(owner, clock, 5), ends_at=clock.now())
    assert (await store.users.authenticate(f"{1:064x}"))[1].expires_at is None
    with pytest.raises(Conflict):
        await store.users.replace_key("key-1", new_key(ada, clock, 2), ends_at=clock.now())
    assert (await store.users.authenticate(f"{1:064x}"))[1].expires_at is None


async def test_a_user_has_so_many_valid_keys_and_dead_ones_are_forgotten(
    store: Store, ada: User, clock: ManualClock
) -> None:
    for number in range(MAX_KEYS):
        await store.users.add_key(new_key(ada, clock, number, lives_s=60))
    with pytest.raises(Conflict, match="too many"):
        await store.users.add_key(new_key(ada, clock, MAX_KEYS))
    clock.advance(60)
    await store.users.add_key(new_key(ada, clock, MAX_KEYS))
    assert len(await store.users.list_keys(ada.id)) == MAX_KEYS + 1
    clock.advance(KEYS_KEPT_FOR.total_seconds() + 1)
    await store.users.add_key(new_key(ada, clock, MAX_KEYS + 1))
    assert [key.id for key in await store.users.list_keys(ada.id)] == [f"key-{MAX_KEYS}", f"key-{MAX_KEYS + 1}"]


async def test_a_signature_is_taken_once_until_it_expires(store: Store, clock: ManualClock) -> None:
    ends_at = clock.now() + timedelta(seconds=60)
    assert await store.users.note_signature("a" * 64, ends_at) is True
    assert await store.users.note_signature("b" * 64, ends_at) is True
    assert await store.users.note_signature("a" * 64, ends_at) is False
    clock.advance(60)
    assert await store.users.note_signature("a" * 64, clock.now() + timedelta(seconds=60)) is True


async def test_of_many_who_bring_the_same_signature_one_is_first(store: Store, clock: ManualClock) -> None:
    ends_at = clock.now() + timedelta(seconds=60)
    taken = await asyncio.gather(*(store.users.note_signature("a" * 64, ends_at) for _ in range(20)))
    assert sum(taken) == 1
