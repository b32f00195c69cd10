"""Which networks a daemon makes, and what it says of policies where it makes none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.control.test_networking import Office

from hearth.config import Settings
from hearth.control.net_mode import NetMode, available, choose, confinement_of
from hearth.engine.qemu.confinement import RootsMeans, UsersMeans
from hearth.errors import InvalidInput
from hearth.host.rights import FOR_FULL_MODE, missing
from hearth.network.machine import MachineNetwork
from hearth.network.policy import CLOSED
from hearth.network.user import UserNetwork


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "machines").mkdir()
    return Office(tmp_path, UserNetwork("a1b2c3d4", tmp_path / "machines"), Settings())


def test_networks_of_the_kernel_take_every_right() -> None:
    assert (available() is NetMode.FULL) == (not missing(FOR_FULL_MODE))


@pytest.mark.root
def test_root_gets_the_full_mode_unless_it_says_otherwise() -> None:
    assert choose(Settings()) is NetMode.FULL
    assert choose(Settings(net="full")) is NetMode.FULL
    assert choose(Settings(net="user")) is NetMode.USER


@pytest.mark.parametrize(
    ("changed", "field"), [({"net": "both"}, "net"), ({"net": "user", "net_default": "public"}, "net_default")]
)
def test_what_cannot_be_meant_is_named(changed: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        choose(replace(Settings(), **changed))  # type: ignore[arg-type]
    assert refused.value.field == field


def test_vmms_are_confined_by_what_makes_their_networks(tmp_path: Path) -> None:
    assert isinstance(confinement_of(UserNetwork("a1b2c3d4", tmp_path)), UsersMeans)
    assert isinstance(confinement_of(MachineNetwork("a1b2c3d4")), RootsMeans)


@pytest.mark.parametrize("said", [None, {}, {"base": "deny"}, {"neighbours": False}])
async def test_a_sandbox_shows_that_it_reaches_nothing(office: Office, said: dict[str, object] | None) -> None:
    assert (await office.row("sb-1", said)).spec.net_policy == CLOSED.describe()


@pytest.mark.parametrize(
    "said", [{"base": "public"}, {"neighbours": True}, {"names": ["example.com"]}, {"audit": True}]
)
async def test_what_user_mode_networking_has_not_is_refused_in_words(office: Office, said: dict[str, object]) -> None:
    sandbox = await office.row("sb-1")
    for asking in (office.row("sb-2", said), office.change(sandbox, **said)):
        with pytest.raises(InvalidInput, match="cannot be had") as refused:
            await asking
        assert "user-mode networking" in refused.value.details
    assert (await office.stored(sandbox)).spec.net_policy == CLOSED.describe()


async def test_a_policy_of_the_full_mode_can_be_closed(office: Office) -> None:
    sandbox = await office.row("sb-1")
    changed = await office.change(sandbox, base="deny", networks=[])
    assert changed.spec.net_policy == CLOSED.describe()
