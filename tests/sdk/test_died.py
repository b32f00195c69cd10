"""An operation that fails because the machine ended says why the machine did."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.server.daemon import RunningDaemon

from hearth.api.schemas import ExitCauseView, SandboxView
from hearth.errors import Code, Conflict, GuestFailed, NotFound
from hearth.sdk import AsyncClient, Client, Sandbox, SandboxDied
from hearth.sdk.died import cause_in, may_be_news

KILL_THE_MACHINE = ["sh", "-c", "kill -9 $PPID"]
"""The development engine's machine is the agent's process, whose child a command is."""
CAUSE = ExitCauseView(kind="vmm_crash", detail="signal 9", at=datetime(2026, 1, 2, tzinfo=UTC))


def view(state: str, cause: ExitCauseView | None) -> SandboxView:
    return SandboxView(
        id="sb-1",
        name="web",
        state=state,
        image="debian",
        cpus=1,
        memory_mb=256,
        labels={},
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        exit_cause=cause,
    )


@pytest.mark.parametrize(
    ("state", "cause", "told"),
    [("failed", CAUSE, CAUSE), ("lost", CAUSE, CAUSE), ("stopped", CAUSE, None), ("failed", None, None)],
)
def test_only_an_end_nobody_asked_for_is_a_death(
    state: str, cause: ExitCauseView | None, told: ExitCauseView | None
) -> None:
    assert cause_in(view(state, cause)) is told


def test_a_machine_that_is_said_to_run_may_have_ended_just_now() -> None:
    assert may_be_news(view("running", None))
    assert not may_be_news(view("failed", CAUSE))


def test_a_death_is_both_a_failed_guest_and_a_conflict_and_keeps_the_code() -> None:
    died = SandboxDied(CAUSE, Conflict("the sandbox does not run", resolution="start it"))
    assert isinstance(died, GuestFailed) and isinstance(died, Conflict)
    assert (died.code, died.cause, died.resolution) == (Code.CONFLICT, CAUSE, "start it")
    assert died.details == "vmm_crash: signal 9"


def test_a_machine_that_ends_under_a_command_is_told_with_its_cause(client: Client) -> None:
    with client.create() as sandbox:
        with pytest.raises(SandboxDied) as died:
            sandbox.run(KILL_THE_MACHINE)
        cause = sandbox.refresh().view.exit_cause
        assert cause is not None
        assert (sandbox.view.state, sandbox.view.heat) == ("failed", "cold")
        assert (died.value.cause.kind, died.value.cause.detail) == (cause.kind, cause.detail)
        with pytest.raises(SandboxDied) as again:
            sandbox.run(["true"])
        assert again.value.code is Code.CONFLICT


def test_a_machine_that_ends_under_a_stream_is_told_with_its_cause(client: Client) -> None:
    with client.create() as sandbox, pytest.raises(SandboxDied), sandbox.stream(KILL_THE_MACHINE) as running:
        list(running)


async def test_the_asyncio_client_tells_it_too(daemon: RunningDaemon) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client, await client.create() as sandbox:
        with pytest.raises(SandboxDied):
            async with sandbox.stream(KILL_THE_MACHINE) as running:
                async for _ in running:
                    pass
        with pytest.raises(SandboxDied) as again:
            await sandbox.run(["true"])
        assert (await client.ending(sandbox.id)).exit_cause.kind == again.value.cause.kind


def test_the_cause_outlives_the_sandbox(client: Client) -> None:
    with client.create() as sandbox, pytest.raises(SandboxDied) as died:
        sandbox.run(KILL_THE_MACHINE)
    with pytest.raises(NotFound):
        client.get(sandbox.id)
    ending = client.ending(sandbox.id)
    assert (ending.name, ending.exit_cause.kind) == (sandbox.name, died.value.cause.kind)
    assert sandbox.id in [each.sandbox_id for each in client.endings()]


def test_other_failures_stay_what_they_are(client: Client, sandbox: Sandbox) -> None:
    with pytest.raises(Conflict) as refused:
        client.checkpoint(sandbox.id, "never")
    assert type(refused.value) is Conflict
