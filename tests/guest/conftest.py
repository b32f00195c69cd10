"""The two peers of the guest link: a scripted one that may lie, and the real agent in test mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.conftest import AgentProcess, running_agent
from tests.guest.peer import Peer, listening_peer

from hearth.guest.client import Guest
from hearth.guest.connector import SYSTEM_CLOCK
from hearth.guest.dial import UnixDialer
from hearth.guest.patience import Patience
from hearth.host.clock import Clock

IMPATIENT = Patience(connect_s=0.05, slot_s=0.05, reply_s=0.05, work_s=0.05, stall_s=0.05)
"""For peers that never answer."""


@pytest.fixture
def peer() -> Iterator[Peer]:
    with listening_peer() as running:
        yield running


@pytest.fixture
def wary(peer: Peer) -> Guest:
    """A guest on the scripted peer, with little patience."""
    return Guest(peer.dialer, None, patience=IMPATIENT)


@pytest.fixture
def steady(peer: Peer) -> Guest:
    """A guest on the scripted peer, with the usual patience."""
    return Guest(peer.dialer, None)


@pytest.fixture(scope="session")
def agent_process() -> Iterator[AgentProcess]:
    """One agent in test mode for all tests of this package that do not need one of their own."""
    with running_agent(token="secret") as running:
        yield running


@pytest.fixture
def guest(agent_process: AgentProcess) -> Guest:
    """The real agent, seen from the host."""
    return guest_of(agent_process, "secret")


def guest_of(agent: AgentProcess, token: str | None, *, clock: Clock = SYSTEM_CLOCK) -> Guest:
    """Give the host's end of a running agent."""
    dialer = UnixDialer(control=Path(str(agent.client.address)), forward=Path(str(agent.client.forward_address)))
    return Guest(dialer, token, clock=clock)
