"""What every store of sandboxes promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host.clock import ManualClock
from hearth.model import (
    ExitCause,
    ExitKind,
    Lifetime,
    Sandbox,
    SandboxChanges,
    SandboxSpec,
    SandboxState,
    User,
)
from hearth.store.base import PageRequest, SandboxExists, Store

CREATING, RUNNING, FAILED = SandboxState.CREATING, SandboxState.RUNNING, SandboxState.FAILED
STOPPED, DESTROYING = SandboxState.STOPPED, SandboxState.DESTROYING
Make = Callable[..., Sandbox]


@pytest.fixture
def make(clock: ManualClock, ada: User) -> Make:
    """Makes sandboxes of ada's, each a second younger than the one before."""
    count = 0

    def make_one(name: str, *, owner: str = ada.id, labels: Mapping[str, str] | None = None) -> Sandbox:
        nonlocal count
        count += 1
        return Sandbox(
            id=f"sb-{name}-{owner}",
            owner=owner,
            spec=SandboxSpec(name=name, labels=labels or {}),
            state=CREATING,
            created_at=clock.now() + timedelta(seconds=count),
        )

    return make_one


async def test_a_sandbox_reads_back_as_it_was_written(store: Store, ada: User, clock: ManualClock) -> None:
    spec = SandboxSpec(
        name="web", image="alpine", cpus=3, memory_mib=512, env={"A": "ü\n\x01", "B": ""}, labels={"a.b": '"x"'}
    )
    sandbox = Sandbox(id="sb-1", owner=ada.id, spec=spec, state=FAILED, created_at=clock.now(), error="no disk")
    await store.sandboxes.create(sandbox)
    assert await store.sandboxes.get("sb-1") == sandbox


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (SandboxSpec(name="web", labels={"a\0b": "x"}), "labels"),
        (SandboxSpec(name="web", labels={"a": "\0"}), "labels"),
        (SandboxSpec(name="web", env={"A": "b\0"}), "env"),
    ],
)
async def test_a_nul_which_databases_cannot_keep_is_refused(
    store: Store, make: Make, spec: SandboxSpec, field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await store.sandboxes.create(replace(make("web"), spec=spec))
    assert caught.value.field == field
    assert await store.sandboxes.count(None) == 0


async def test_a_second_one_of_the_same_name_is_refused_with_the_first(store: Store, make: Make) -> None:
    first = make("web")
    await store.sandboxes.create(first)
    with pytest.raises(SandboxExists) as caught:
        await store.sandboxes.create(replace(make("web"), id="sb-other"))
    assert caught.value.existing == first
    assert await store.sandboxes.count(None) == 1


async def test_of_many_racing_for_a_name_one_wins_and_all_learn_who(store: Store, make: Make) -> None:
    rivals = [replace(make("web"), id=f"sb-{number}") for number in range(20)]
    outcomes = await asyncio.gather(*(store.sandboxes.create(rival) for rival in rivals), return_exceptions=True)
    winners = [rival for rival, outcome in zip(rivals, outcomes, strict=True) if outcome is None]
    assert len(winners) == 1
    losers = [outcome for outcome in outcomes if isinstance(outcome, SandboxExists)]
    assert [loser.existing for loser in losers] == winners * 19


async def test_two_owners_may_use_one_name(store: Store, make: Make, ada: User, bob: User) -> None:
    await store.sandboxes.create(make("web"))
    await store.sandboxes.create(make("web", owner=bob.id))
    assert await store.sandboxes.count(ada.id) == 1
    assert await store.sandboxes.count(None) == 2


async def test_a_taken_id_is_a_conflict_but_not_an_existing_sandbox(store: Store, make: Make) -> None:
    await store.sandboxes.create(make("web"))
    twin = replace(make("other"), id=make("web").id)
    with pytest.raises(Conflict) as caught:
        await store.sandboxes.create(twin)
    assert not isinstance(caught.value, SandboxExists)


async def test_an_owner_must_exist(store: Store, make: Make) -> None:
    with pytest.raises(NotFound, match="user"):
        await store.sandboxes.create(make("web", owner="user-x"))
    assert await store.sandboxes.count(None) == 0


async def test_a_reference_is_an_id_or_a_name_of_the_owner(store: Store, make: Make, ada: User, bob: User) -> None:
    mine, theirs = make("web"), make("db", owner=bob.id)
    await store.sandboxes.create(mine)
    await store.sandboxes.create(theirs)
    assert await store.sandboxes.resolve(ada.id, "web") == mine
    assert await store.sandboxes.resolve(ada.id, mine.id) == mine
    assert await store.sandboxes.resolve(None, "db") == theirs
    for reference in ("db", theirs.id, "nothing"):
        with pytest.raises(NotFound):
            await store.sandboxes.resolve(ada.id, reference)


async def test_an_id_goes_before_a_name(store: Store, make: Make, ada: User) -> None:
    first = make("web")
    await store.sandboxes.create(first)
    await store.sandboxes.create(make(first.id))
    assert await store.sandboxes.resolve(ada.id, first.id) == first


async def test_a_name_of_several_owners_is_ambiguous_for_an_administrator(store: Store, make: Make, bob: User) -> None:
    await store.sandboxes.create(make("web"))
    await store.sandboxes.create(make("web", owner=bob.id))
    with pytest.raises(Conflict, match="id"):
        await store.sandboxes.resolve(None, "web")


@pytest.mark.parametrize(
    ("labels", "states", "found"),
    [
        ({}, (), ["a", "b", "c"]),
        ({"tier": "web"}, (), ["a", "b"]),
        ({"tier": "web", "x.y": "1"}, (), ["a"]),
        ({"tier": "we"}, (), []),
        ({"x": "1"}, (), []),
        ({"x.y": "1", "q'\"$[0]": "2"}, (), ["c"]),
        ({"0": "zero"}, (), ["b"]),
        ({}, (RUNNING, FAILED), ["b"]),
        ({"tier": "web"}, (CREATING,), ["a"]),
    ],
)
async def test_a_list_is_filtered_by_whole_labels_and_by_state(
    store: Store,
    make: Make,
    ada: User,
    labels: Mapping[str, str],
    states: tuple[SandboxState, ...],
    found: list[str],
) -> None:
    await store.sandboxes.create(make("a", labels={"tier": "web", "x.y": "1"}))
    await store.sandboxes.create(make("b", labels={"tier": "web", "0": "zero"}))
    await store.sandboxes.create(make("c", labels={"x.y": "1", "q'\"$[0]": "2"}))
    await store.sandboxes.transition(f"sb-b-{ada.id}", {CREATING}, RUNNING)
    page = await store.sandboxes.list(ada.id, labels=labels, states=states)
    assert [sandbox.spec.name for sandbox in page.items] == found


async def test_pages_neither_repeat_nor_skip_when_rows_come_and_go(store: Store, make: Make, ada: User) -> None:
    for name in "abcd":
        await store.sandboxes.create(make(name))
    first = await store.sandboxes.list(ada.id, page=PageRequest(limit=2))
    await store.sandboxes.delete(first.items[1].id, {CREATING})
    await store.sandboxes.create(make("e"))
    second = await store.sandboxes.list(ada.id, page=PageRequest(limit=2, cursor=first.next_cursor))
    third = await store.sandboxes.list(ada.id, page=PageRequest(limit=2, cursor=second.next_cursor))
    names = [[sandbox.spec.name for sandbox in page.items] for page in (first, second, third)]
    assert names == [["a", "b"], ["c", "d"], ["e"]]
    assert third.next_cursor is None


async def test_pages_split_rows_of_one_moment(store: Store, make: Make, ada: User, clock: ManualClock) -> None:
    for name in "dbca":
        await store.sandboxes.create(replace(make(name), created_at=clock.now()))
    names: list[str] = []
    cursor = None
    for _ in range(4):
        page = await store.sandboxes.list(ada.id, page=PageRequest(limit=1, cursor=cursor))
        names += [sandbox.spec.name for sandbox in page.items]
        cursor = page.next_cursor
    assert names == ["a", "b", "c", "d"]
    assert cursor is None


async def test_a_transition_sets_state_and_error(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    failed = await store.sandboxes.transition(sandbox.id, {CREATING, RUNNING}, FAILED, error="no kernel")
    assert (failed.state, failed.error) == (FAILED, "no kernel")
    assert await store.sandboxes.get(sandbox.id) == failed
    revived = await store.sandboxes.transition(sandbox.id, {FAILED}, RUNNING)
    assert (revived.state, revived.error) == (RUNNING, None)


async def test_a_transition_from_another_state_is_a_conflict_and_changes_nothing(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    with pytest.raises(Conflict, match="creating"):
        await store.sandboxes.transition(sandbox.id, {RUNNING}, FAILED, error="x")
    assert await store.sandboxes.get(sandbox.id) == sandbox


def panic(clock: ManualClock) -> ExitCause:
    """An end with everything there is to say about it."""
    words = ("Kernel panic - not syncing: VFS", "---[ end ]---")
    return ExitCause(kind=ExitKind.KERNEL_PANIC, detail="VFS", process="init", console=words, at=clock.now())


async def test_what_a_sandbox_came_from_and_how_it_ended_reads_back(
    store: Store, make: Make, clock: ManualClock
) -> None:
    spec = SandboxSpec(name="web", keep_hot=True, ttl_s=3600, idle_pause_s=0.5, idle_stop_s=60)
    sandbox = replace(
        make("web"),
        spec=spec,
        state=STOPPED,
        image_id="rootfs-1",
        origin="tpl-1",
        parent="sb-0",
        expires_at=clock.now() + timedelta(hours=1),
        exit_cause=panic(clock),
        stopped_at=clock.now(),
    )
    await store.sandboxes.create(sandbox)
    assert await store.sandboxes.get(sandbox.id) == sandbox


async def test_a_cause_stays_until_the_sandbox_runs_again(store: Store, make: Make, clock: ManualClock) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    await store.sandboxes.transition(sandbox.id, {CREATING}, RUNNING)
    failed = await store.sandboxes.transition(sandbox.id, {RUNNING}, FAILED, exit_cause=panic(clock))
    assert failed.exit_cause == panic(clock)
    going = await store.sandboxes.transition(sandbox.id, {FAILED}, DESTROYING)
    assert going.exit_cause == panic(clock)
    assert await store.sandboxes.get(sandbox.id) == going
    assert (await store.sandboxes.transition(sandbox.id, {DESTROYING}, RUNNING)).exit_cause is None


async def test_a_stop_is_stamped_and_a_start_wipes_the_stamp(store: Store, make: Make, clock: ManualClock) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    clock.advance(90)
    stopped = await store.sandboxes.transition(sandbox.id, {CREATING}, STOPPED)
    assert stopped.stopped_at == clock.now()
    clock.advance(90)
    assert (await store.sandboxes.transition(sandbox.id, {STOPPED}, RUNNING)).stopped_at is None
    assert (await store.sandboxes.get(sandbox.id)).stopped_at is None


async def test_an_update_changes_what_it_names_and_nothing_else(store: Store, make: Make, clock: ManualClock) -> None:
    sandbox = replace(make("web", labels={"a": "1", "b": "2", "c": "3"}), origin="tpl-1", error="x")
    sandbox = replace(sandbox, spec=replace(sandbox.spec, env={"KEY": "value"}, idle_stop_s=5))
    await store.sandboxes.create(sandbox)
    assert await store.sandboxes.update(sandbox.id, SandboxChanges()) == sandbox
    until = clock.now() + timedelta(seconds=60)
    changes = SandboxChanges(
        name="db",
        keep_hot=True,
        labels_remove=("a", "b", "nothing"),
        labels_add={"b": "new", "d": "4"},
        lifetime=Lifetime(ttl_s=60, expires_at=until),
    )
    spec = replace(sandbox.spec, name="db", keep_hot=True, labels={"c": "3", "b": "new", "d": "4"}, ttl_s=60)
    changed = await store.sandboxes.update(sandbox.id, changes)
    assert changed == replace(sandbox, spec=spec, expires_at=until)
    assert await store.sandboxes.get(sandbox.id) == changed
    assert await store.sandboxes.resolve(None, "db") == changed
    assert (await store.sandboxes.list(None, labels={"d": "4"})).items == [changed]
    for_ever = await store.sandboxes.update(sandbox.id, SandboxChanges(lifetime=Lifetime()))
    assert (for_ever.spec.ttl_s, for_ever.expires_at) == (None, None)
    with pytest.raises(NotFound):
        await store.sandboxes.resolve(None, "web")


async def test_an_update_to_a_taken_name_or_of_a_dying_sandbox_changes_nothing(
    store: Store, make: Make, bob: User
) -> None:
    web, db = make("web"), make("db")
    for sandbox in (web, db, make("cache", owner=bob.id)):
        await store.sandboxes.create(sandbox)
    with pytest.raises(SandboxExists) as caught:
        await store.sandboxes.update(web.id, SandboxChanges(name="db", keep_hot=True))
    assert caught.value.existing == db
    with pytest.raises(InvalidInput):
        await store.sandboxes.update(web.id, SandboxChanges(labels_add={"a": "\0"}, keep_hot=True))
    with pytest.raises(Conflict, match="creating"):
        await store.sandboxes.update(web.id, SandboxChanges(keep_hot=True), expected={RUNNING})
    assert await store.sandboxes.get(web.id) == web
    await store.sandboxes.update(web.id, SandboxChanges(name="cache"))
    await store.sandboxes.transition(db.id, {CREATING}, DESTROYING)
    with pytest.raises(Conflict, match="destroying"):
        await store.sandboxes.update(db.id, SandboxChanges(keep_hot=True))


async def test_updates_at_once_lose_nothing(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    labels = {f"label-{number}": "x" for number in range(20)}
    changes = [SandboxChanges(labels_add={key: value}) for key, value in labels.items()]
    await asyncio.gather(*(store.sandboxes.update(sandbox.id, change) for change in changes))
    assert (await store.sandboxes.get(sandbox.id)).spec.labels == labels


async def test_an_origin_is_set_once_unless_the_old_one_is_known(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    set_once = await store.sandboxes.set_origin(sandbox.id, "tpl-1")
    assert set_once == replace(sandbox, origin="tpl-1")
    with pytest.raises(Conflict, match="tpl-1"):
        await store.sandboxes.set_origin(sandbox.id, "tpl-2")
    assert await store.sandboxes.get(sandbox.id) == set_once
    moved = await store.sandboxes.set_origin(sandbox.id, "tpl-2", expected="tpl-1")
    assert moved.origin == "tpl-2"
    assert (await store.sandboxes.set_origin(sandbox.id, None, expected="tpl-2")).origin is None


async def test_origins_are_counted_over_all_owners_and_states(store: Store, make: Make, bob: User) -> None:
    for name, owner, origin in (("a", "user-ada", "tpl-1"), ("b", bob.id, "tpl-1"), ("c", bob.id, "tpl-2")):
        await store.sandboxes.create(replace(make(name, owner=owner), origin=origin))
    await store.sandboxes.create(make("d"))
    await store.sandboxes.transition(f"sb-b-{bob.id}", {CREATING}, STOPPED)
    assert await store.sandboxes.origins() == {"tpl-1": 2, "tpl-2": 1}


async def test_of_many_transitions_at_once_one_wins(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    changes = [store.sandboxes.transition(sandbox.id, {CREATING}, RUNNING) for _ in range(20)]
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(outcome, Sandbox) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19


async def test_a_sandbox_is_deleted_only_from_the_states_expected(store: Store, make: Make) -> None:
    sandbox = make("web")
    await store.sandboxes.create(sandbox)
    with pytest.raises(Conflict):
        await store.sandboxes.delete(sandbox.id, {RUNNING})
    await store.sandboxes.delete(sandbox.id, {CREATING})
    assert await store.sandboxes.count(None) == 0


async def test_what_is_not_there_cannot_be_read_changed_or_deleted(store: Store) -> None:
    for work in (
        store.sandboxes.get("sb-x"),
        store.sandboxes.transition("sb-x", {RUNNING}, FAILED),
        store.sandboxes.update("sb-x", SandboxChanges(keep_hot=True)),
        store.sandboxes.set_origin("sb-x", "tpl-1"),
        store.sandboxes.delete("sb-x", {RUNNING}),
    ):
        with pytest.raises(NotFound, match="sb-x"):
            await work


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(labels=st.dictionaries(TEXT, TEXT, max_size=3), env=st.dictionaries(TEXT, TEXT))
async def test_any_text_in_labels_and_env_survives_and_is_found(
    store: Store, make: Make, ada: User, labels: dict[str, str], env: dict[str, str]
) -> None:
    made = make("web", labels=labels)
    sandbox = replace(made, spec=SandboxSpec(name="web", labels=labels, env=env))
    await store.sandboxes.create(sandbox)
    assert (await store.sandboxes.list(ada.id, labels=labels)).items == [sandbox]
    await store.sandboxes.delete(sandbox.id, {CREATING})
