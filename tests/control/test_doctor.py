from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hearth.control.doctor import NOTHING_TO_DO, PACKAGES, Finding, Status, accelerator, findings
from hearth.control.net_trial import NetworkReport, try_networks
from hearth.engine.base import EngineReport
from hearth.host.facts import TOOLS, HostFacts
from hearth.host.rights import CAPABILITIES
from hearth.model import Accelerator

FIT = HostFacts(
    kernel_release="6.12.0",
    uid=0,
    missing_capabilities=frozenset(),
    tools=dict.fromkeys(TOOLS, "version 1"),
    tun_obstacle=None,
    namespace_obstacle=None,
    enclosure_obstacle=None,
    nftables_obstacle=None,
    cgroup_version=2,
    cgroup_reason="version 2",
    disk_free_mib=100_000,
    disk_obstacle=None,
    reflink=True,
    memory_mib=16_000,
    memory_available_mib=12_000,
    userfaultfd=True,
    pagemap_scan=True,
    vhost_vsock=True,
    same_page_merging=True,
    compressed_swap=True,
)
KVM = EngineReport(engine="qemu", version="7.2", accelerator=Accelerator.KVM, reason="a guest booted")
W, F = Status.WARNING, Status.FAILED

WANTING: list[tuple[str, dict[str, Any], str, Status, str]] = [
    ("no rights", {"uid": 1000, "missing_capabilities": frozenset(CAPABILITIES)}, "privileges", W, "CAP_NET_ADMIN"),
    ("one right less", {"missing_capabilities": frozenset({"CAP_SETUID"})}, "privileges", W, "without CAP_SETUID"),
    (
        "no rights and no namespaces",
        {"missing_capabilities": frozenset(CAPABILITIES), "enclosure_obstacle": "refused"},
        "privileges",
        F,
        "refused",
    ),
    ("no fakeroot", {"uid": 1000, "tools": {"fakeroot": None}}, "fakeroot", W, "to build images"),
    ("no driver", {"tun_obstacle": "No such file"}, "tap devices", F, "No such file"),
    ("no namespaces", {"namespace_obstacle": "Operation not permitted"}, "network namespaces", F, "not permitted"),
    ("no nftables", {"nftables_obstacle": "Protocol not supported"}, "nftables", F, "not supported"),
    ("no groups", {"cgroup_version": 0, "cgroup_reason": "none are mounted"}, "control groups", W, "none are mounted"),
    ("no QEMU", {"tools": {"qemu-system-x86_64": None}}, "qemu-system-x86_64", F, "not installed"),
    ("no qemu-img", {"tools": {"qemu-img": None}}, "qemu-img", F, "not installed"),
    ("no setpriv", {"tools": {"setpriv": None}}, "setpriv", F, "not installed"),
    ("no mmdebstrap", {"tools": {"mmdebstrap": None}}, "mmdebstrap", W, "to build images"),
    ("no mke2fs", {"tools": {"mke2fs": None}}, "mke2fs", W, "to build images"),
    ("a full disk", {"disk_free_mib": 4095}, "disk space", F, "4.0 GiB"),
    ("a small disk", {"disk_free_mib": 4096}, "disk space", W, "4.0 GiB"),
    ("a read-only disk", {"disk_obstacle": "Read-only file system"}, "disk space", F, "Read-only"),
    ("no reflink", {"reflink": False}, "reflink", W, "cannot share"),
    ("hardly any memory", {"memory_available_mib": 511}, "memory", F, "511 of 16000 MiB"),
    ("little memory", {"memory_available_mib": 512}, "memory", W, "512 of 16000 MiB"),
    ("no scan", {"pagemap_scan": False}, "pagemap scan", W, "6.12.0"),
    ("no userfaultfd", {"userfaultfd": False}, "userfaultfd", W, "6.12.0"),
    ("no vsock", {"vhost_vsock": False}, "vhost vsock", W, "6.12.0"),
    ("no KSM", {"same_page_merging": False}, "same-page merging", W, "6.12.0"),
    ("no zram", {"compressed_swap": False}, "compressed swap", W, "zram"),
]


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.status is not Status.OK]


def test_a_fit_host_has_nothing_to_do() -> None:
    found = findings(FIT, KVM)
    assert bad(found) == []
    assert {finding.advice for finding in found} == {NOTHING_TO_DO}
    assert len({finding.name for finding in found}) == len(found)


@pytest.mark.parametrize(("story", "change", "name", "status", "words"), WANTING)
def test_one_thing_wanting_is_one_finding_with_advice(
    story: str, change: dict[str, Any], name: str, status: Status, words: str
) -> None:
    (finding,) = bad(findings(dataclasses.replace(FIT, **change), KVM))
    assert (finding.name, finding.status) == (name, status), story
    assert words in finding.found
    assert finding.advice not in ("", NOTHING_TO_DO)


def test_what_only_the_full_mode_needs_is_no_failure_without_roots_rights() -> None:
    obstacles = dict.fromkeys(("tun_obstacle", "namespace_obstacle", "nftables_obstacle"), "not permitted")
    user = {"uid": 1000, "missing_capabilities": frozenset(CAPABILITIES), "cgroup_version": 0}
    found = bad(findings(dataclasses.replace(FIT, **obstacles, **user), KVM))  # type: ignore[arg-type]
    assert {finding.status for finding in found} == {W}
    advice = {finding.name: finding.advice for finding in found}
    assert set(advice) == {"privileges", "tap devices", "network namespaces", "nftables", "control groups"}
    assert "egress policies" in advice["privileges"]
    assert "resource limits" in advice["control groups"]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_missing_tool_is_advised_by_its_package(tool: str) -> None:
    (finding,) = bad(findings(dataclasses.replace(FIT, uid=1000, tools={tool: None}), KVM))
    assert PACKAGES[tool] in finding.advice


@pytest.mark.parametrize(
    ("report", "status", "words"),
    [
        (None, Status.WARNING, "not tried yet"),
        (KVM, Status.OK, "kvm (qemu 7.2): a guest booted"),
        (dataclasses.replace(KVM, accelerator=Accelerator.TCG, reason="no /dev/kvm"), Status.WARNING, "no /dev/kvm"),
        (dataclasses.replace(KVM, accelerator=None, reason="no QEMU"), Status.FAILED, "none"),
    ],
)
def test_the_accelerator_is_judged_by_what_the_engine_reports(
    report: EngineReport | None, status: Status, words: str
) -> None:
    finding = accelerator(report)
    assert finding.status is status
    assert words in finding.found
    assert finding.advice


NETWORKS = NetworkReport(policy_obstacle=None, rate_obstacle=None, ways_out=("eth0",), servers=("192.0.2.1",))


@pytest.mark.parametrize(
    ("change", "wanting"),
    [
        ({}, {}),
        ({"policy_obstacle": "no nft_log", "rate_obstacle": "no nft_log"}, {"network policies": F, "network rates": W}),
        ({"rate_obstacle": "no sch_tbf"}, {"network rates": W}),
        ({"ways_out": ()}, {"way to the world": W}),
        ({"servers": ()}, {"way to the world": W}),
    ],
)
def test_what_networks_lack_is_told_with_advice(change: dict[str, Any], wanting: dict[str, Status]) -> None:
    found = bad(findings(FIT, KVM, dataclasses.replace(NETWORKS, **change)))
    assert {finding.name: finding.status for finding in found} == wanting
    assert all(finding.advice not in ("", NOTHING_TO_DO) for finding in found)


@pytest.mark.root
async def test_a_trial_of_networks_leaves_nothing() -> None:
    report = await try_networks("7e57ab1e")
    assert (report.policy_obstacle, report.rate_obstacle) == (None, None)
