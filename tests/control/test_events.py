"""The ring of events: readers lose nothing, whoever is too slow is told, and nobody sees another's."""

from __future__ import annotations

import asyncio
import inspect
import re

import pytest

from hearth.control import reporting
from hearth.control.events import MAX_READERS_PER_USER, Events, FellBehind, Wanted, kinds_of
from hearth.control.reporting import Reporter
from hearth.errors import InvalidInput, RateLimited
from hearth.host.clock import ManualClock
from hearth.model import Heat
from hearth.store.memory import MemoryStore

WAIT_S = 60.0
ALL = Wanted()


@pytest.fixture
def events() -> Events:
    return Events(ManualClock(), run="run-1", kept=16)


async def test_readers_that_keep_up_lose_nothing_however_many_events_there_are(events: Events) -> None:
    readers = [events.reader("ada", ALL) for _ in range(50)]

    async def read(index: int) -> list[int]:
        seen: list[int] = []
        while (found := await readers[index].next(WAIT_S)) is not None:
            seen += [event.number for event in found]
        return seen

    reading = [asyncio.create_task(read(index)) for index in range(len(readers))]
    for number in range(200):
        events.tell("sandbox.changed", f"sb-{number}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    events.close()
    async with asyncio.timeout(WAIT_S):
        assert await asyncio.gather(*reading) == [list(range(200))] * len(readers)


async def test_a_reader_that_falls_behind_is_told_and_costs_no_memory(events: Events) -> None:
    slow = events.reader("ada", ALL)
    for number in range(17):
        events.tell("sandbox.changed", f"sb-{number}")
    with pytest.raises(FellBehind, match="1 were gone"):
        await slow.next(WAIT_S)


async def test_nothing_new_is_no_end(events: Events) -> None:
    reader = events.reader("ada", ALL)
    assert await reader.next(0.001) == ()
    events.close()
    assert await reader.next(WAIT_S) is None


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (Wanted(), ["1", "2", "3", "4"]),
        (Wanted(owner="ada"), ["1", "3"]),
        (Wanted(owner="ada", kinds=kinds_of(["job.*"])), ["3"]),
        (Wanted(kinds=kinds_of(["sandbox", "job.failed"])), ["1", "2"]),
        (Wanted(subject="2"), ["2"]),
        (Wanted(owner="nobody"), []),
    ],
)
async def test_a_reader_gets_what_it_wants_and_may_see(events: Events, wanted: Wanted, seen: list[str]) -> None:
    reader = events.reader("x", wanted)
    for kind, subject, owner in (
        ("sandbox.running", "1", "ada"),
        ("sandbox.stopped", "2", "bob"),
        ("job.running", "3", "ada"),
        ("snapshot.ready", "4", None),
    ):
        events.tell(kind, subject, owner=owner)
    assert [event.subject for event in reader.take()] == seen


@pytest.mark.parametrize(
    ("name", "details", "resolution"),
    [
        ("sandbox.runing", "there are sandbox.changed, sandbox.cold, ", "did you mean 'sandbox.running'?"),
        ("sandboxes", "there are gap, job, port, ", "did you mean 'sandbox'?"),
        ("host.full.*", "there are gap, job, port, ", "name one of these"),
    ],
)
def test_a_kind_that_is_never_told_is_refused_with_the_nearest(name: str, details: str, resolution: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        kinds_of(["job", name])
    assert details in (caught.value.details or "")
    assert (caught.value.resolution, caught.value.field) == (resolution, "type")


def test_all_that_is_told_can_be_asked_for() -> None:
    words = re.findall(r'"([a-z]+\.[a-z]+)"', inspect.getsource(reporting))
    assert len(words) > 10
    assert kinds_of(words) == set(words)


async def test_a_place_is_behind_its_event_and_of_one_run(events: Events) -> None:
    for number in range(3):
        events.tell("job.running", str(number))

    def subjects(after: str | None) -> tuple[list[str], bool]:
        reader = events.reader("ada", ALL, after=after)
        return [event.subject for event in reader.take()], reader.whole

    assert subjects(None) == ([], True)
    assert subjects("oldest") == (["0", "1", "2"], True)
    assert subjects(events.place(0)) == (["1", "2"], True)
    assert subjects(events.place(2)) == ([], True)
    assert subjects(events.place(3)) == (["0", "1", "2"], False)
    assert subjects("run-0.0") == (["0", "1", "2"], False)
    for number in range(20):
        events.tell("job.running", str(number))
    assert not subjects(events.place(0))[1]
    for wrong in ("", "1", "run-1.", "run-1.-1", "run-1.1\n", "run-1." + "9" * 19):
        with pytest.raises(InvalidInput, match="place"):
            subjects(wrong)


async def test_readers_are_counted(events: Events) -> None:
    readers = [events.reader("ada", ALL) for _ in range(MAX_READERS_PER_USER)]
    with pytest.raises(RateLimited):
        events.reader("ada", ALL)
    events.reader("bob", ALL).close()
    readers[0].close()
    readers[0].close()
    events.reader("ada", ALL)


async def test_every_method_that_is_told_of_is_one_of_the_stores(events: Events) -> None:
    store, reporter = MemoryStore(), Reporter(events)
    watched = reporter.watch(store)
    for name in ("sandboxes", "snapshots", "volumes", "publications", "jobs"):
        told = getattr(reporter, name)()
        assert all(callable(getattr(getattr(store, name), method)) for method in told)
        assert getattr(watched, name) is not getattr(store, name)
    assert watched.users is store.users


async def test_heat_of_a_sandbox_nobody_knows_is_for_administrators(events: Events) -> None:
    Reporter(events).heat("sb-1", Heat.WARM)
    (event,) = events.reader("root", ALL, after="oldest").take()
    assert (event.kind, event.owner) == ("sandbox.warm", None)
    assert events.reader("ada", Wanted(owner="ada"), after="oldest").take() == []
