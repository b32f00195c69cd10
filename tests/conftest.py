"""Every test proves that it left nothing behind; those that need root or real machines say so by a marker."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop
from hypothesis import HealthCheck, settings
from tests import leaks
from tests.database_fixtures import empty_url, migrated_template, migrated_url, postgresql
from tests.libvirt_fixtures import libvirtd

__all__ = ["empty_url", "libvirtd", "migrated_template", "migrated_url", "postgresql"]

settings.register_profile(
    "hearth",
    deadline=None,  # how long an example takes, or to make one, says how busy the machine is
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,  # the same examples every time: `make fuzz` is for finding others
)
settings.load_profile("hearth")

DAEMON_FILES = ("test_serve.py", "test_recovery.py", "test_crash.py")
"""Their tests start daemons themselves."""
SLOW_FILES = (
    "agent/services/test_sessions.py",
    "agent/services/test_system.py",
    "agent/services/test_watch.py",
    "agent/test_locked_root.py",
    "agent/test_slow_clients.py",
    "api/test_conformance.py",
    "api/test_openapi.py",
    "cli/test_completion.py",
    "cli/test_config.py",
    "cli/test_provision.py",
    "cli/test_shell.py",
    "contract/test_ending_store.py",
    "contract/test_golden_backends.py",
    "contract/test_secret_store.py",
    "contract/test_volume_backends.py",
    "control/test_buckets.py",
    "control/test_endings.py",
    "control/test_execs.py",
    "control/test_forks.py",
    "control/test_heat.py",
    "control/test_image_jobs.py",
    "control/test_image_upkeep.py",
    "control/test_libvirt_report.py",
    "control/test_links.py",
    "control/test_metering.py",
    "control/test_presence.py",
    "control/test_publishing.py",
    "control/test_sandboxes.py",
    "docs/test_site.py",
    "engine/qemu/test_merging.py",
    "engine/qemu/test_overlay.py",
    "engine/qemu/test_slots.py",
    "engine/test_memory_image.py",
    "engine/test_snapshot.py",
    "golden/test_part.py",
    "guest/test_hostile_peer.py",
    "host/test_enclosure.py",
    "host/test_facts.py",
    "host/test_libvirt.py",
    "host/test_memory.py",
    "host/test_partitions.py",
    "host/test_reclaim.py",
    "image/golden/test_cache.py",
    "image/golden/test_root.py",
    "image/golden/test_sources.py",
    "image/layers/test_streams.py",
    "image/layers/test_tree.py",
    "image/oci/test_registry.py",
    "image/test_owners.py",
    "image/test_store.py",
    "jobs/test_blocked_store.py",
    "journal/test_log.py",
    "network/test_egress.py",
    "network/test_fabric.py",
    "network/test_host_firewall.py",
    "network/test_isolation.py",
    "network/test_rates.py",
    "provisioning/test_chaos_disks.py",
    "provisioning/test_chaos_network.py",
    "provisioning/test_chaos_stages.py",
    "provisioning/test_chaos_verify.py",
    "provisioning/test_hostile_images.py",
    "provisioning/test_hostile_orders.py",
    "qemu/test_block_tool.py",
    "sdk/test_client.py",
    "sdk/test_events.py",
    "sdk/test_retries.py",
    "sdk/test_twins.py",
    "server/proxy/test_door.py",
    "server/proxy/test_options.py",
    "server/proxy/test_tunnel.py",
    "server/test_burst.py",
    "server/test_draining.py",
    "server/test_events.py",
    "server/test_execs.py",
    "server/test_images.py",
    "server/test_kept_execs.py",
    "server/test_logs.py",
    "server/test_machine_templates.py",
    "server/test_provision.py",
    "server/test_provision_libvirt.py",
    "server/test_rates.py",
    "server/test_secure.py",
    "server/test_sse.py",
    "server/test_takeover.py",
    "server/test_tenants.py",
    "server/test_terminals.py",
    "server/test_uploads.py",
    "server/test_webhooks.py",
    "server/test_websocket.py",
    "store/test_migrate.py",
    "store/test_postgresql.py",
    "store/test_sqlite.py",
    "store/test_translation.py",
    "store/test_upgrade.py",
    "volume/golden/test_file.py",
    "volume/golden/test_growing.py",
    "volume/golden/test_libvirt.py",
    "volume/golden/test_lvm.py",
    "volume/golden/test_measuring.py",
    "volume/golden/test_populate.py",
    "volume/golden/test_verifying.py",
    "volume/test_copying.py",
    "volume/test_file.py",
    "volume/test_locks.py",
)
"""Processes, mounts, namespaces and databases by the dozen; left out of `make check`, which is to take a minute."""
LONG_FILES = (
    "lab/test_libvirt.py",
    "lab/test_workflow.py",
    "lab/test_lvm.py",
    "lab/test_lab.py",
    "agent/test_suite_in_machine.py",
    "docs/test_machine_pages.py",
    "machines/test_attack.py",
    "machines/test_recovery.py",
    "machines/test_rootless.py",
    "machines/test_volume_recovery.py",
    "docs/test_local_pages.py",
    "provisioning/test_chaos_stages.py",
    "server/test_database.py",
    "server/test_images.py",
    "server/test_provision.py",
    "server/test_takeover.py",
    "service/test_systemd.py",
)
"""Minutes each: begun first, so that no worker is left alone with one at the end."""
TASK_END_ROUNDS = 10
"""Turns of the loop a task that was told to end may take to do so."""


GROUPS_BEFORE = pytest.StashKey[frozenset[str]]()


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[GROUPS_BEFORE] = frozenset(leaks.control_groups())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Count the control groups of all workers together, once they have ended."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    before, deadline_s = session.config.stash[GROUPS_BEFORE], time.monotonic() + leaks.GROUPS_SETTLE_S
    left = set(leaks.control_groups()) - before
    while left and time.monotonic() < deadline_s:
        time.sleep(0.1)
        left &= set(leaks.control_groups())
    if left:
        print(f"\nleft behind by the whole run: {', '.join(sorted(left))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    leaks.isolate()
    run = contextlib.ExitStack()
    run.enter_context(leaks.own_temporary_directory())
    config.add_cleanup(run.close)
    uvloop.new_event_loop().close()  # opens a pipe for signals, once per process, that stays


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import files of which `make check` leaves everything out."""
    if "not slow" in config.option.markexpr and collection_path.as_posix().endswith(SLOW_FILES):
        return True
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        starts_daemon = "daemon" in getattr(item, "fixturenames", ()) or item.path.parent.name == "bench"
        if starts_daemon or item.path.name in DAEMON_FILES:
            item.add_marker(pytest.mark.daemon)
        if item.path.as_posix().endswith(SLOW_FILES):
            item.add_marker(pytest.mark.slow)

    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG_FILES))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once what failed, and how: a run that is cut off prints no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} failed ({report.when}):\n{report.longreprtext}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: run it with sudo")


@pytest.fixture(scope="session", autouse=True)
def own_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    leaks.watch(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[leaks.Snapshot]:
    """Fail a test that leaves a process, a namespace, a descriptor, a thread or the like."""
    for marker, server in (("postgresql", "postgresql"), ("libvirt", "libvirtd")):
        if request.node.get_closest_marker(marker):
            request.getfixturevalue(server)  # once for all of them: not this test's to end
    before = leaks.take()
    yield before
    found = leaks.left_behind(before)
    directory = request.node.funcargs.get("tmp_path")
    if isinstance(directory, Path):
        found += leaks.half_written(directory)
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest, nothing_left_behind: leaks.Snapshot) -> None:
    """Watch the tasks of asynchronous tests; the others are spared a loop, which is gone before the rest is counted."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        marker = request.node.get_closest_marker("asyncio")
        scope = marker.kwargs.get("loop_scope") if marker is not None else None
        request.getfixturevalue("background_at_rest" if scope == "module" else "every_task_ended")


@pytest_asyncio.fixture(loop_scope="module")
async def background_at_rest(nothing_left_behind: leaks.Snapshot) -> AsyncIterator[None]:
    """Let a daemon of the whole file end what it just does unasked: its loop stands still while others look."""
    yield
    await leaks.settle(nothing_left_behind)


@pytest.fixture
async def every_task_ended() -> AsyncIterator[None]:
    """Fail an asynchronous test whose tasks outlive it and its fixtures; the loop's end would hide them."""
    before = asyncio.all_tasks()
    yield
    for _ in range(TASK_END_ROUNDS):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("left behind: " + "; ".join(f"task {task.get_name()}" for task in left), pytrace=False)
