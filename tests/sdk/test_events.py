"""Events and jobs as users of the SDK follow them: to the end of what there is, for ever, and over a restart."""

from __future__ import annotations

import threading

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.api.event_schemas import EventView
from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client
from hearth.sdk.event_calls import EventReader

WAIT_S = 60.0
FRAME = b'id: run.1\nevent: sandbox.hot\ndata: {"id":"run.1","type":"sandbox.hot","at":"2026-01-01T00:00:00Z"}\n\n'


def test_what_happened_is_told_and_the_stream_ends(client: Client) -> None:
    with client.create(name="told-to-the-sdk") as sandbox:
        pass
    seen = list(client.events.follow(types=["sandbox"], subject=sandbox.id, after="oldest", follow=False))
    assert [seen[0].type, seen[-1].type] == ["sandbox.creating", "sandbox.destroyed"]
    after = list(client.events.follow(subject=sandbox.id, after=seen[0].id, follow=False))
    assert [event.id for event in after] == [event.id for event in seen[1:]]


def test_jobs_are_listed_and_shown_and_one_that_ended_is_not_cancelled(client: Client) -> None:
    with client.create(name="worked-for-the-sdk") as sandbox:
        (job,) = [each for each in client.events.jobs("completed") if each.subject == sandbox.id]
        assert client.events.job(job.job_id) == job
        with pytest.raises(InvalidInput, match="ended"):
            client.events.cancel(job.job_id)
        with pytest.raises(NotFound):
            client.events.cancel("job-000000000000")


async def test_the_asynchronous_client_tells_the_same(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="told-to-the-async-sdk") as sandbox:
        pass
    expected = list(client.events.follow(subject=sandbox.id, after="oldest", follow=False))
    async with AsyncClient(daemon.url, daemon.token) as other:
        assert [
            each async for each in other.events.follow(subject=sandbox.id, after="oldest", follow=False)
        ] == expected
        jobs = await other.events.jobs()
        assert [job.job_id for job in jobs] == [job.job_id for job in client.events.jobs()]
        assert await other.events.job(jobs[0].job_id) == jobs[0]
        with pytest.raises((InvalidInput, Conflict)):
            await other.events.cancel(jobs[0].job_id)


def test_a_stream_goes_on_after_a_restart_and_says_that_there_may_be_a_gap() -> None:
    with data_directory() as data:
        publish_images(data)
        seen: list[EventView] = []
        first, last = threading.Event(), threading.Event()

        def follow(url: str, token: str) -> None:
            with Client(url, token) as client:
                for event in client.events.follow(types=["sandbox.running"], after="oldest"):
                    seen.append(event)
                    first.set()
                    if event.name == "after":
                        last.set()
                        return

        with running_daemon(data) as daemon, daemon.client() as client:
            client.create(name="before")
            following = threading.Thread(target=follow, args=(daemon.url, daemon.token))
            following.start()
            assert first.wait(WAIT_S)
            daemon.process.kill()
            daemon.process.wait(WAIT_S)
        with running_daemon(data) as daemon, daemon.client() as client:
            client.create(name="after")
            assert last.wait(WAIT_S)
            following.join(WAIT_S)
        assert [event.name for event in seen if event.type != "gap"] == ["before", "after"]
        assert "gap" in [event.type for event in seen]


@pytest.mark.parametrize("size", [1, 7, len(FRAME)])
def test_a_stream_may_come_in_any_pieces(size: int) -> None:
    data = b"retry: 2000\n\n" + FRAME + b": nothing new\n\n" + FRAME.replace(b"run.1", b"run.2")
    reader = EventReader()
    seen = [event.id for start in range(0, len(data), size) for event in reader.feed(data[start : start + size])]
    assert (seen, reader.last) == (["run.1", "run.2"], "run.2")
