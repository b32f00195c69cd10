"""Sleep, changes and ends from both clients at a real daemon, and that the two are twins."""

from __future__ import annotations

import inspect

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import Conflict, NotFound
from hearth.sdk import AsyncClient, AsyncSandbox, Client, Sandbox


def public(kind: type[object]) -> dict[str, list[str]]:
    """Give the names of what users call, with those of their parameters."""
    return {
        name: list(inspect.signature(value).parameters)
        for name, value in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("blocking", "asynchronous"), [(Client, AsyncClient), (Sandbox, AsyncSandbox)])
def test_what_one_client_can_do_the_other_can(blocking: type[object], asynchronous: type[object]) -> None:
    assert public(blocking) == public(asynchronous)
    assert {"stop", "start", "pause", "resume", "fork", "checkpoint", "save_image", "update"} <= set(public(blocking))


def test_a_sandbox_is_changed_and_shown_as_it_is_then(client: Client) -> None:
    with client.create(labels={"a": "1"}) as sandbox:
        changed = sandbox.update(name="renamed", labels_remove=["a"], keep_hot=True, ttl_s=600)
        assert changed is sandbox
        assert (sandbox.name, sandbox.view.labels, sandbox.view.keep_hot) == ("renamed", {}, True)
        client.update("renamed", ttl_s=None)
        assert sandbox.view.ttl_s == 600
        assert sandbox.refresh().view.ttl_s is None
        assert sandbox.start().view.heat == "hot"


def test_an_engine_without_sleep_refuses_what_needs_it(client: Client) -> None:
    with client.create() as sandbox:
        for refused in (sandbox.stop, sandbox.pause, sandbox.resume, sandbox.fork):
            with pytest.raises(Conflict, match="sleep"):
                refused()
        for named in (sandbox.checkpoint, sandbox.save_image):
            with pytest.raises(Conflict, match="sleep"):
                named("never")
        with pytest.raises(Conflict, match="sleep"):
            client.warm_machine_template(image="debian")
        assert sandbox.refresh().view.state == "running"
    assert (client.snapshots(), client.machine_templates()) == ([], [])


def test_what_is_not_there_is_said_so(client: Client) -> None:
    for ask in (
        client.snapshot,
        client.delete_snapshot,
        client.resume_snapshot,
        client.ending,
        client.delete_machine_template,
    ):
        with pytest.raises(NotFound, match="nosuch"):
            ask("nosuch")


def test_many_ends_are_given_whole(client: Client) -> None:
    made = [client.create() for _ in range(3)]
    for sandbox in made:
        sandbox.destroy()
    ended = [ending.sandbox_id for ending in client.endings()]
    assert [each for each in ended if each in {sandbox.id for sandbox in made}] == [sandbox.id for sandbox in made]
    assert {client.ending(sandbox.id).exit_cause.kind for sandbox in made} == {"user"}


async def test_the_asyncio_client_does_the_same(daemon: RunningDaemon) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        async with await client.create(ttl_s=600) as sandbox:
            assert (await sandbox.update(ttl_s=None, labels_add={"a": "b"})).view.labels == {"a": "b"}
            assert (await sandbox.refresh()).view.expires_at is None
            assert (await sandbox.start(force=True)).view.heat == "hot"
            for refused in (sandbox.stop, sandbox.pause, sandbox.resume, sandbox.fork):
                with pytest.raises(Conflict, match="sleep"):
                    await refused()
        assert (await client.ending(sandbox.id)).name == sandbox.name
        assert sandbox.id in [ending.sandbox_id for ending in await client.endings()]
        assert (await client.snapshots(), await client.machine_templates()) == ([], [])
