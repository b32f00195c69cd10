"""What every store of sealed secrets promises."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hearth.errors import Conflict, NotFound
from hearth.host.clock import ManualClock
from hearth.model import ApiKey, User
from hearth.store.base import PageRequest, Store
from hearth.store.secret_store import MAX_SECRETS, Sealed
from hearth.store.user_store import NewKey
from hearth.tenancy import KeyKind, SealedSecret


def secret(owner: User, name: str, clock: ManualClock, *, sealed: bytes = b"s", key_id: str = "k1") -> SealedSecret:
    now = clock.now()
    return SealedSecret(owner=owner.id, name=name, sealed=sealed, key_id=key_id, created_at=now, updated_at=now)


async def test_a_secret_reads_back_and_a_new_value_keeps_its_beginning(
    store: Store, ada: User, clock: ManualClock
) -> None:
    first = secret(ada, "TOKEN", clock, sealed=b"\x00\xff")
    assert await store.secrets.put(first) == first
    assert await store.secrets.get(ada.id, ["TOKEN", "OTHER"]) == [first]
    clock.advance(5)
    second = await store.secrets.put(secret(ada, "TOKEN", clock, sealed=b"new", key_id="k2"))
    assert second.created_at == first.created_at == second.updated_at - timedelta(seconds=5)
    assert await store.secrets.get(ada.id, ["TOKEN"]) == [second]


async def test_secrets_are_their_owners(store: Store, ada: User, bob: User, clock: ManualClock) -> None:
    await store.secrets.put(secret(ada, "TOKEN", clock))
    assert await store.secrets.get(bob.id, ["TOKEN"]) == []
    assert (await store.secrets.list(bob.id)).items == []
    with pytest.raises(NotFound):
        await store.secrets.delete(bob.id, "TOKEN")
    await store.secrets.delete(ada.id, "TOKEN")
    with pytest.raises(NotFound):
        await store.secrets.delete(ada.id, "TOKEN")
    with pytest.raises(NotFound):
        await store.secrets.put(secret(User(id="user-x", name="x"), "TOKEN", clock))


async def test_a_list_comes_in_pages(store: Store, ada: User, clock: ManualClock) -> None:
    for name in "EDCBA":
        await store.secrets.put(secret(ada, name, clock))
        clock.advance(1)
    first = await store.secrets.list(ada.id, PageRequest(limit=3))
    second = await store.secrets.list(ada.id, PageRequest(limit=3, cursor=first.next_cursor))
    assert [each.name for each in (*first.items, *second.items)] == list("EDCBA")


async def test_there_is_an_end_to_secrets(store: Store, ada: User, clock: ManualClock) -> None:
    for number in range(MAX_SECRETS):
        await store.secrets.put(secret(ada, f"S{number}", clock))
    with pytest.raises(Conflict, match="too many"):
        await store.secrets.put(secret(ada, "MORE", clock))
    await store.secrets.put(secret(ada, "S0", clock, sealed=b"changed"))


async def test_everything_sealed_is_sealed_anew_or_nothing(store: Store, ada: User, clock: ManualClock) -> None:
    await store.secrets.put(secret(ada, "A", clock, sealed=b"a"))
    await store.secrets.put(secret(ada, "B", clock, sealed=b"b", key_id="k2"))
    key = ApiKey(id="key-1", user_id=ada.id, prefix="hs_", created_at=clock.now(), kind=KeyKind.HMAC)
    await store.users.add_key(NewKey(key=key, digest="d" * 64, sealed=b"k", sealed_by="k3"))
    assert set(await store.secrets.master_keys()) == {"k1", "k2", "k3"}

    def fail(each: Sealed) -> Sealed:
        if each.sealed == b"k":
            raise NotFound("no key")
        return Sealed(context=each.context, sealed=each.sealed * 2, key_id="k9")

    with pytest.raises(NotFound):
        await store.secrets.reseal(fail)
    assert set(await store.secrets.master_keys()) == {"k1", "k2", "k3"}
    seen = []

    def reseal(each: Sealed) -> Sealed:
        seen.append(each.context)
        return Sealed(context=each.context, sealed=each.sealed * 2, key_id="k9")

    assert await store.secrets.reseal(reseal) == 3
    assert seen == [f"secret:{ada.id}:A", f"secret:{ada.id}:B", "key:key-1"]
    assert set(await store.secrets.master_keys()) == {"k9"}
    assert [each.sealed for each in await store.secrets.get(ada.id, ["A", "B"])] == [b"aa", b"bb"]
    assert (await store.users.signing_key("key-1")).sealed == b"kk"
    await store.users.delete(ada.id)
    assert set(await store.secrets.master_keys()) == set()
