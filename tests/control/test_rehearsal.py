"""What a machine does ahead of its user, with a real agent: who may speak to it afterwards, and what is left over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.agent.conftest import AgentProcess, running_agent
from tests.guest.conftest import guest_of
from tests.server.daemon import data_directory

from hearth.config import Settings
from hearth.control.rehearsal import NO_TOKEN, rehearse
from hearth.control.tools import make_workshop
from hearth.errors import GuestFailed
from hearth.host.clock import SystemClock
from hearth.host.directory import prepare_directory
from hearth.jobs.bringup import Workshop
from hearth.wire.messages import ExecRequest

PRINT_ENVIRONMENT = ExecRequest(argv=["/usr/bin/env"])


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    with data_directory() as data:
        yield make_workshop(prepare_directory(data), Settings(engine="local"), SystemClock())


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with running_agent() as running:
        yield running


async def test_a_template_speaks_to_everybody_as_before(workshop: Workshop, agent: AgentProcess) -> None:
    await rehearse(workshop, guest_of(agent, None), "tpl-1", lives=2, token=NO_TOKEN)
    ran = await guest_of(agent, None).run(PRINT_ENVIRONMENT, timeout_s=60, max_output_bytes=10_000)
    assert ran.exit_code == 0


async def test_a_ready_clone_speaks_to_its_own_sandbox_alone(workshop: Workshop, agent: AgentProcess) -> None:
    await rehearse(workshop, guest_of(agent, None), "sb-1", lives=3, token=None)
    with pytest.raises(GuestFailed):
        await guest_of(agent, None).activity()
    with pytest.raises(GuestFailed):
        await guest_of(agent, workshop.agent_token("sb-2")).activity()
    assert (await guest_of(agent, workshop.agent_token("sb-1")).activity()).active_sessions == 0


def test_no_life_that_was_rehearsed_has_the_generation_of_the_sandbox(workshop: Workshop) -> None:
    rehearsed = [workshop.generation(f"sb-1/{life}") for life in range(3)]
    assert len({*rehearsed, workshop.generation("sb-1")}) == 4
