"""Whether this host is fit: facts in, findings out; every finding says what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from hearth.control.net_trial import NetworkReport
from hearth.engine.base import EngineReport
from hearth.host.enclosure import HOW_TO_PERMIT
from hearth.host.facts import HostFacts
from hearth.model import Accelerator

NOTHING_TO_DO = "nothing to do"
RUN_AS_ROOT = "run the daemon as root, for example by its systemd unit"
MIN_DISK_MIB = 4096
"""Room for the images, for building them beside the old ones and for a few sandboxes."""
GOOD_DISK_MIB = 20_480
MIN_MEMORY_MIB = 512
"""The smallest sandbox of the default size with its VMM."""
GOOD_MEMORY_MIB = 2048
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "setpriv": "util-linux",
    "fakeroot": "fakeroot",
}
NEEDED_TO_BUILD = ("mmdebstrap", "mke2fs", "fakeroot")
WITHOUT_ROOT = ("fakeroot",)
"""Tools that take the place of root's rights."""
IN_USER_MODE = "exec, files, forward, proxy, publishing, sleep, forks and volumes work"
ONLY_IN_FULL_MODE = (
    "sandboxes that reach each other or the world, egress policies and their log, "
    "VMMs with a user id and a control group of their own"
)


class Status(StrEnum):
    """How bad it is: nothing, a feature less, or no sandboxes at all."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report: what was looked at, what was found, what to do."""

    name: str
    status: Status
    found: str
    advice: str


def findings(facts: HostFacts, report: EngineReport | None, networks: NetworkReport | None = None) -> list[Finding]:
    """Judge a host; ``report`` is the engine's own finding, None before the images are there to try.

    Args:
        networks: what came of trying them; None where that was not tried.
    """
    judged = [accelerator(report)] + [finding for check in CHECKS for finding in check(facts)]
    return judged if networks is None else [*judged, *sandbox_networks(networks)]


def sandbox_networks(report: NetworkReport) -> list[Finding]:
    """Judge what sandboxes can reach, and whether they can be kept from the rest."""
    policies = _works(
        "network policies",
        report.policy_obstacle,
        "a machine was connected and its policy put into force",
        f"sandboxes do not run without; see docs/network.md for what the kernel needs, and {RUN_AS_ROOT}",
    )
    rates = _works(
        "network rates",
        report.rate_obstacle,
        "uploads and downloads can be bounded",
        "sandboxes with rates do not run; 'modprobe sch_tbf'",
        without=Status.WARNING,
    )
    advice = (
        "sandboxes reach each other only; give this host a default route and a DNS server that is not on its loopback"
    )
    name, routes, servers = "way to the world", ", ".join(report.ways_out), ", ".join(report.servers)
    if not routes:
        return [policies, rates, warning(name, "this host has no default route", advice)]
    if not servers:
        found = f"by {routes}, but without names: no DNS server was found"
        return [policies, rates, warning(name, found, "name one with 'hearth serve --dns SERVER'")]
    found = f"by {routes}, names from {servers}; used once a policy leads there"
    return [policies, rates, ok(name, found)]


def accelerator(report: EngineReport | None) -> Finding:
    """Judge what executes the guests' instructions."""
    name = "accelerator"
    if report is None:
        return warning(name, "not tried yet", "run 'hearth setup': it proves the accelerator by booting a guest")
    found = f"{report.accelerator or 'none'} ({report.engine} {report.version}): {report.reason}"
    if report.accelerator is None:
        return failed(name, found, "install QEMU with 'make setup', then run 'hearth doctor' again")
    if report.accelerator is Accelerator.TCG:
        return warning(
            name,
            found,
            "sandboxes run, but every instruction is translated; for speed use bare metal or a VM with nested KVM",
        )
    return ok(name, found)


def privileges(facts: HostFacts) -> list[Finding]:
    """Judge the daemon's rights: all for the full mode, or what user-mode networking takes."""
    if not facts.missing_capabilities:
        return [ok("privileges", f"user {facts.uid} with all rights needed: full mode")]
    found = f"user {facts.uid} without {', '.join(sorted(facts.missing_capabilities))}"
    if facts.enclosure_obstacle is not None:
        found = f"{found}, and a VMM cannot be enclosed by other means: {facts.enclosure_obstacle}"
        return [failed("privileges", found, HOW_TO_PERMIT)]
    return [
        warning(
            "privileges",
            f"{found}: user-mode networking; {IN_USER_MODE}",
            f"for {ONLY_IN_FULL_MODE}: {RUN_AS_ROOT}; see docs/rootless.md",
        )
    ]


def in_user_mode(facts: HostFacts) -> bool:
    """Tell whether a daemon with these rights runs machines with user-mode networking."""
    return bool(facts.missing_capabilities) and facts.enclosure_obstacle is None


def network(facts: HostFacts) -> list[Finding]:
    """Judge what machines' networks are made of; without the rights for any they are for the full mode alone."""
    users = in_user_mode(facts)
    without = Status.WARNING if users else Status.FAILED
    why_nft = "the full mode needs them" if users else "nothing would keep sandboxes apart, so none run"
    return [
        _works(
            "tap devices",
            facts.tun_obstacle,
            "/dev/net/tun opens",
            f"'modprobe tun', and {RUN_AS_ROOT}",
            without=without,
        ),
        _works("network namespaces", facts.namespace_obstacle, "can be made", RUN_AS_ROOT, without=without),
        _works(
            "nftables",
            facts.nftables_obstacle,
            "the kernel answers",
            f"{why_nft}; 'modprobe nf_tables', and {RUN_AS_ROOT}",
            without=without,
        ),
    ]


def control_groups(facts: HostFacts) -> list[Finding]:
    """Judge whether a machine's memory and tasks can be bounded from outside."""
    if facts.cgroup_version:
        return [ok("control groups", facts.cgroup_reason)]
    bounded = "are bounded by resource limits of each process" if in_user_mode(facts) else "run unbounded by the host"
    advice = f"VMMs {bounded}; run the daemon as root or by a systemd unit with Delegate=yes"
    return [warning("control groups", facts.cgroup_reason, advice)]


def tools(facts: HostFacts) -> list[Finding]:
    """Judge the programs hearth starts."""
    found = []
    for name, version in facts.tools.items():
        if name in WITHOUT_ROOT and facts.uid == 0:
            continue
        if version is not None:
            found.append(ok(name, version))
            continue
        advice = f"apt-get install {PACKAGES[name]}, or 'make setup'"
        judge = warning if name in NEEDED_TO_BUILD else failed
        suffix = "; needed to build images" if name in NEEDED_TO_BUILD else ""
        found.append(judge(name, f"not installed{suffix}", advice))
    return found


def disk(facts: HostFacts) -> list[Finding]:
    """Judge the file system of the data directory."""
    name, found = "disk space", f"{facts.disk_free_mib / 1024:.1f} GiB free"
    advice = "free some, or point HEARTH_DATA to a larger file system"
    if facts.disk_obstacle is not None:
        space = failed(name, facts.disk_obstacle, "point HEARTH_DATA to a directory that can be written")
    elif facts.disk_free_mib < MIN_DISK_MIB:
        space = failed(name, found, f"{advice}; {MIN_DISK_MIB // 1024} GiB are the least")
    elif facts.disk_free_mib < GOOD_DISK_MIB:
        space = warning(name, found, f"{advice}; {GOOD_DISK_MIB // 1024} GiB are comfortable")
    else:
        space = ok(name, found)
    if facts.reflink:
        return [space, ok("reflink", "files can share blocks: copies of disks cost nothing")]
    advice = "disks are copied or layered instead; XFS or Btrfs under HEARTH_DATA makes copies free"
    return [space, warning("reflink", "the file system cannot share blocks between files", advice)]


def memory(facts: HostFacts) -> list[Finding]:
    """Judge how many machines there is room for."""
    name, found = "memory", f"{facts.memory_available_mib} of {facts.memory_mib} MiB available"
    if facts.memory_available_mib < MIN_MEMORY_MIB:
        return [failed(name, found, f"a sandbox needs {MIN_MEMORY_MIB} MiB; end something or add memory")]
    if facts.memory_available_mib < GOOD_MEMORY_MIB:
        return [warning(name, found, "room for a few small sandboxes; add memory for more")]
    return [ok(name, found)]


def kernel_features(facts: HostFacts) -> list[Finding]:
    """Judge what makes things faster or denser where it is there; nothing needs it."""
    release = facts.kernel_release
    return [
        _feature(
            "pagemap scan", facts.pagemap_scan, release, "diffs read all of pagemap; Linux 6.7 or later has the scan"
        ),
        _feature(
            "userfaultfd", facts.userfaultfd, release, "memory is loaded eagerly; use a kernel with CONFIG_USERFAULTFD"
        ),
        _feature(
            "vhost vsock", facts.vhost_vsock, release, "agents are reached over TCP; 'modprobe vhost_vsock' if wanted"
        ),
        _feature(
            "same-page merging",
            facts.same_page_merging,
            release,
            "equal pages are kept apart; a kernel with CONFIG_KSM",
        ),
        _compressed_swap(facts.compressed_swap),
    ]


CHECKS: tuple[Callable[[HostFacts], list[Finding]], ...] = (
    privileges,
    network,
    control_groups,
    tools,
    disk,
    memory,
    kernel_features,
)


def ok(name: str, found: str) -> Finding:
    """All is well."""
    return Finding(name=name, status=Status.OK, found=found, advice=NOTHING_TO_DO)


def warning(name: str, found: str, advice: str) -> Finding:
    """Sandboxes run, something is slower or missing."""
    return Finding(name=name, status=Status.WARNING, found=found, advice=advice)


def failed(name: str, found: str, advice: str) -> Finding:
    """Sandboxes cannot run."""
    return Finding(name=name, status=Status.FAILED, found=found, advice=advice)


def _works(name: str, obstacle: str | None, found: str, advice: str, *, without: Status = Status.FAILED) -> Finding:
    if obstacle is None:
        return ok(name, found)
    return Finding(name=name, status=without, found=obstacle, advice=advice)


def _feature(name: str, there: bool, release: str, advice: str) -> Finding:
    if there:
        return ok(name, f"Linux {release} has it")
    return warning(name, f"Linux {release} does not offer it", advice)


def _compressed_swap(there: bool) -> Finding:
    if there:
        return ok("compressed swap", "swap on zram is in use")
    return warning("compressed swap", "no swap on zram", "idle memory stays as it is; set up zram if it is short")
