"""The master key: made once, never replaced in silence, changed without a moment at which something is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hearth.control.vault import Vault, seal
from hearth.errors import HostUnfit
from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.store.memory import MemoryStore
from hearth.store.secret_store import Sealed, context_of_secret
from hearth.tenancy import SealedSecret

OWNER = "user-ada"


class House:
    """A store with a user, and the vault over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.vault = Vault(path, self.store.secrets)

    async def put(self, name: str, value: bytes) -> None:
        context = context_of_secret(OWNER, name)
        async with self.vault.sealing() as key:
            made = seal(key, context, value)
            now = self.clock.now()
            await self.store.secrets.put(
                SealedSecret(
                    owner=OWNER, name=name, sealed=made.sealed, key_id=made.key_id, created_at=now, updated_at=now
                )
            )

    async def get(self, name: str) -> bytes:
        (found,) = await self.store.secrets.get(OWNER, [name])
        context = context_of_secret(OWNER, name)
        (value,) = await self.vault.open([Sealed(context=context, sealed=found.sealed, key_id=found.key_id)])
        return value


@pytest.fixture
async def house(tmp_path: Path) -> House:
    made = House(tmp_path / "master.key")
    await made.store.users.create(User(id=OWNER, name="ada"))
    return made


async def test_what_is_sealed_opens_again_and_does_not_hold_the_value(house: House) -> None:
    await house.put("TOKEN", b"canary")
    (stored,) = await house.store.secrets.get(OWNER, ["TOKEN"])
    assert b"canary" not in stored.sealed
    assert "canary" not in repr(stored)
    assert await house.get("TOKEN") == b"canary"
    assert house.path.stat().st_mode & 0o777 == 0o600


async def test_a_value_sealed_twice_looks_different(house: House) -> None:
    await house.put("A", b"same")
    (first,) = await house.store.secrets.get(OWNER, ["A"])
    await house.put("A", b"same")
    (second,) = await house.store.secrets.get(OWNER, ["A"])
    assert first.sealed != second.sealed


async def test_nothing_to_seal_needs_no_key(house: House) -> None:
    await house.vault.check()
    assert list(await house.vault.open([])) == []
    assert not house.path.exists()


async def test_a_lost_key_is_named_and_never_replaced(house: House) -> None:
    await house.put("TOKEN", b"canary")
    (stored,) = await house.store.secrets.get(OWNER, ["TOKEN"])
    house.path.unlink()
    for attempt in (house.get("TOKEN"), house.put("OTHER", b"x")):
        with pytest.raises(HostUnfit) as lost:
            await attempt
        assert str(house.path) in str(lost.value)
        assert stored.key_id in str(lost.value)
    with pytest.raises(HostUnfit):
        await house.vault.rotate()
    assert not house.path.exists()
    await house.store.secrets.delete(OWNER, "TOKEN")
    await house.put("OTHER", b"x")
    assert await house.get("OTHER") == b"x"


async def test_another_key_is_named_too_and_stays_untouched(house: House, tmp_path: Path) -> None:
    await house.put("TOKEN", b"canary")
    other = House(tmp_path / "other.key")
    await other.store.users.create(User(id=OWNER, name="ada"))
    await other.put("X", b"x")
    foreign = other.path.read_bytes()
    house.path.write_bytes(foreign)
    with pytest.raises(HostUnfit, match="lost or another"):
        await house.get("TOKEN")
    with pytest.raises(HostUnfit, match="lost or another"):
        await house.vault.rotate()
    assert foreign in house.path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"hearth-master-key-1:\n", b"hearth-master-key-1:AAAA\n", b"\xff\n", b"AAAA"])
async def test_a_damaged_key_is_an_error(house: House, content: bytes) -> None:
    house.path.write_bytes(content)
    house.path.chmod(0o600)
    with pytest.raises(HostUnfit, match="damaged"):
        await house.put("TOKEN", b"x")
    assert house.path.read_bytes() == content


async def test_a_key_that_others_may_read_is_refused(house: House) -> None:
    await house.put("TOKEN", b"x")
    house.path.chmod(0o640)
    with pytest.raises(HostUnfit, match="0640"):
        await house.get("TOKEN")


async def test_what_is_sealed_opens_in_its_place_alone(house: House) -> None:
    await house.put("A", b"secret of a")
    await house.put("B", b"secret of b")
    (stolen,) = await house.store.secrets.get(OWNER, ["A"])
    for context in (context_of_secret(OWNER, "B"), context_of_secret("user-bob", "A")):
        with pytest.raises(HostUnfit, match="cannot be opened"):
            await house.vault.open([Sealed(context=context, sealed=stolen.sealed, key_id=stolen.key_id)])


async def test_a_changed_key_opens_everything_and_the_old_one_nothing(house: House) -> None:
    await house.put("A", b"a")
    await house.put("B", b"b")
    old = house.path.read_bytes()
    (before,) = await house.store.secrets.get(OWNER, ["A"])
    assert await house.vault.rotate() == 2
    assert (await house.get("A"), await house.get("B")) == (b"a", b"b")
    (after,) = await house.store.secrets.get(OWNER, ["A"])
    assert after.key_id != before.key_id
    assert old.strip() not in house.path.read_bytes()
    house.path.write_bytes(old)
    with pytest.raises(HostUnfit):
        await house.get("A")


async def test_secrets_set_while_the_key_changes_are_not_lost(house: House) -> None:
    for number in range(5):
        await house.put(f"S{number}", b"v")
    setting = [house.put(f"N{number}", b"new") for number in range(20)]
    await asyncio.gather(*setting[:10], house.vault.rotate(), *setting[10:], house.vault.rotate())
    assert {await house.get(f"N{number}") for number in range(20)} == {b"new"}
    assert {await house.get(f"S{number}") for number in range(5)} == {b"v"}


async def test_a_change_cut_half_way_loses_nothing(house: House) -> None:
    await house.put("A", b"a")
    (stored,) = await house.store.secrets.get(OWNER, ["A"])
    damaged = SealedSecret(
        owner=OWNER,
        name="Z",
        sealed=b"not sealed by anybody at all, but long enough to be",
        key_id=stored.key_id,
        created_at=house.clock.now(),
        updated_at=house.clock.now(),
    )
    await house.store.secrets.put(damaged)
    with pytest.raises(HostUnfit):
        await house.vault.rotate()
    assert await house.get("A") == b"a"
    assert len(house.path.read_text().splitlines()) == 2
    await house.store.secrets.delete(OWNER, "Z")
    await house.vault.rotate()
    assert await house.get("A") == b"a"
    assert len(house.path.read_text().splitlines()) == 1
