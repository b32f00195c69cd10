"""What every store promises about the audit log."""

from __future__ import annotations

from datetime import timedelta

from hearth.host.clock import ManualClock
from hearth.model import User
from hearth.store.audit_store import AuditFilter
from hearth.store.base import PageRequest, Store
from hearth.tenancy import AuditEntry


def entry(number: int, clock: ManualClock, *, user: str = "user-ada", action: str = "create_sandbox") -> AuditEntry:
    return AuditEntry(
        id=f"au-{number:04}",
        created_at=clock.now(),
        user_id=user,
        user_name=user.removeprefix("user-"),
        key_id="key-1" if number % 2 else None,
        action=action,
        object="web" if number % 2 else None,
        status=201,
        code=None if number % 2 else "conflict",
        remote="unix",
        request_id=f"req-{number}",
    )


async def test_entries_read_back_as_they_were_written_oldest_first(store: Store, clock: ManualClock) -> None:
    first = [entry(number, clock) for number in (1, 2)]
    await store.audit.append(first)
    clock.advance(1)
    later = [entry(number, clock) for number in (3, 4, 5)]
    await store.audit.append(later)
    page = await store.audit.list(page=PageRequest(limit=3))
    rest = await store.audit.list(page=PageRequest(limit=3, cursor=page.next_cursor))
    assert [*page.items, *rest.items] == first + later
    assert rest.next_cursor is None


async def test_entries_are_found_by_user_action_and_time(store: Store, clock: ManualClock) -> None:
    begun = clock.now()
    await store.audit.append([entry(1, clock), entry(2, clock, user="user-bob")])
    clock.advance(10)
    await store.audit.append([entry(3, clock, action="exec"), entry(4, clock, user="user-bob", action="exec")])

    async def found(**wanted: object) -> list[str]:
        items = (await store.audit.list(AuditFilter(**wanted))).items  # type: ignore[arg-type]
        return [each.id for each in items]

    assert await found(user_id="user-bob") == ["au-0002", "au-0004"]
    assert await found(action="exec") == ["au-0003", "au-0004"]
    assert await found(since=begun + timedelta(seconds=10), user_id="user-ada") == ["au-0003"]
    assert await found(user_id="user-eve") == []


async def test_old_entries_are_dropped(store: Store, clock: ManualClock) -> None:
    await store.audit.append([entry(1, clock)])
    clock.advance(60)
    await store.audit.append([entry(2, clock)])
    assert await store.audit.expire(clock.now()) == 1
    assert [each.id for each in (await store.audit.list()).items] == ["au-0002"]


async def test_what_somebody_did_stays_when_they_go(store: Store, ada: User, clock: ManualClock) -> None:
    await store.audit.append([entry(1, clock, user=ada.id)])
    await store.users.delete(ada.id)
    assert len((await store.audit.list()).items) == 1
