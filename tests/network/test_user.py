"""User-mode networking as the rest of the daemon sees it; with machines it is tested in tests/machines."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hearth.errors import HostUnfit
from hearth.network.policy import CLOSED, DEFAULT, Policy, parse_policy
from hearth.network.user import GATE, UserNetwork

OPEN = [{"base": "public"}, {"names": ["example.com"]}, {"networks": ["192.0.2.0/24"]}, {"audit": True}]


@pytest.fixture
def network(tmp_path: Path) -> UserNetwork:
    (tmp_path / "sb-1").mkdir()
    return UserNetwork("a1b2c3d4", tmp_path)


async def test_a_machines_gate_listens_in_its_directory_for_its_owner_alone(
    network: UserNetwork, tmp_path: Path
) -> None:
    link = await network.setup("sb-1", owner="ann", name="one", policy=DEFAULT)
    with socket.socket(fileno=link.tap_fd) as gate:
        assert gate.getsockname() == str(tmp_path / "sb-1" / GATE)
        assert (tmp_path / "sb-1" / GATE).stat().st_mode & 0o777 == 0o600
    assert (link.namespace, link.address) == ("", None)


async def test_a_second_life_takes_the_gate_over(network: UserNetwork, tmp_path: Path) -> None:
    for _ in range(2):
        link = await network.setup("sb-1")
        socket.socket(fileno=link.tap_fd).close()


@pytest.mark.parametrize("said", OPEN)
async def test_a_policy_that_opens_something_is_refused_not_dropped(
    network: UserNetwork, tmp_path: Path, said: dict[str, object]
) -> None:
    with pytest.raises(HostUnfit, match="policy") as refused:
        await network.setup("sb-1", owner="ann", name="one", policy=parse_policy(said))
    assert "user-mode networking" in refused.value.details
    assert [*(tmp_path / "sb-1").iterdir()] == []


def test_nothing_is_connected_and_the_widest_policy_is_closed(network: UserNetwork) -> None:
    assert (network.connects, network.widest, network.resolvers) == (False, CLOSED, [])
    assert Policy(neighbours=False, upload_bytes_per_s=100_000).is_within(network.widest)
    assert not DEFAULT.is_within(network.widest)


async def test_nobody_answers_without_a_machine(network: UserNetwork) -> None:
    with pytest.raises(FileNotFoundError):
        await network.dialer("sb-1").connect(1024)
    assert await network.list() == set()
    await network.teardown("sb-1")
