"""What is tried in which scene."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from hearth.attack.guest.work import ACTIONS
from hearth.attack.model import Expect, Probe
from hearth.attack.plan import GROUPS, NEEDS_FRIEND, NEEDS_STRANGER, Scene, probes_for

SCENE = Scene(
    run="0123abcd",
    gateway="172.16.0.1",
    address="100.64.0.2",
    friend="100.64.0.3",
    friend_name="friend",
    stranger="100.64.4.2",
    stranger_name="stranger",
    has_spare=True,
    hosts=("203.0.113.1",),
    also=(("192.0.2.9", 22),),
)


def by_id(scene: Scene) -> dict[str, Probe]:
    return {probe.id: probe for probe in probes_for(scene)}


def test_ids_are_different_and_fit_a_mark_and_every_action_is_known() -> None:
    probes = probes_for(SCENE)
    assert len({probe.id for probe in probes}) == len(probes)
    for probe in probes:
        assert re.fullmatch(r"[a-z0-9-]{1,60}", probe.id), probe.id
        assert not probe.do or probe.do in ACTIONS, probe
        assert probe.group in GROUPS, probe
    assert {probe.group for probe in probes} == set(GROUPS)


def test_every_control_is_tried_too() -> None:
    probes = by_id(SCENE)
    for probe in probes.values():
        assert all(control in probes or control == "impostor-heard" for control in probe.control), probe


def test_in_a_whole_scene_nothing_is_left_out() -> None:
    assert [probe.id for probe in probes_for(SCENE) if not probe.tried_at_all] == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stranger": None}, NEEDS_STRANGER),
        ({"friend": None, "has_spare": False}, NEEDS_FRIEND),
        ({"has_spare": False}, NEEDS_FRIEND),
        ({"neighbours": False}, NEEDS_FRIEND),
    ],
)
def test_what_a_scene_lacks_is_not_tried_and_says_why(changes: dict[str, object], reason: str) -> None:
    left_out = [probe for probe in probes_for(replace(SCENE, **changes)) if not probe.tried_at_all]  # type: ignore[arg-type]
    assert {probe.because for probe in left_out} == {reason}
    tried = [probe for probe in probes_for(replace(SCENE, **changes)) if probe.tried_at_all]  # type: ignore[arg-type]
    assert any(probe.group == "metadata" for probe in tried)


def test_a_policy_decides_what_is_allowed_and_metadata_never_is() -> None:
    closed, opened = by_id(SCENE), by_id(replace(SCENE, is_open=True))
    for identity in ("world-9-9-9-9-53", "name-txt-udp", "tunnel-a"):
        assert closed[identity].expect in (Expect.DENIED, Expect.REFUSED_NAME), identity
        assert opened[identity].expect is Expect.ALLOWED, identity
    assert opened["private-10-0-0-1"].expect is Expect.DENIED
    wide = by_id(replace(SCENE, is_open=True, allowed=(IPv4Network("0.0.0.0/0"),)))
    assert wide["private-10-0-0-1"].expect is Expect.ALLOWED
    assert wide["metadata-169-254-169-254"].expect is Expect.DENIED
    assert wide["host-203-0-113-1-22"].expect is Expect.DENIED


def test_a_sandbox_without_neighbours_does_not_reach_them() -> None:
    assert by_id(SCENE)["friend-dial"].expect is Expect.ALLOWED
    assert by_id(replace(SCENE, neighbours=False))["friend-dial"].expect is Expect.DENIED


def test_a_group_brings_its_controls_along() -> None:
    probes = probes_for(SCENE, ["ipv6"])
    assert {probe.id for probe in probes if probe.group != "ipv6"} == {"frame-honest"}
    assert {"friend-dial", "gateway-dns", "friend-name"} <= {probe.id for probe in probes_for(SCENE, ["strangers"])}
