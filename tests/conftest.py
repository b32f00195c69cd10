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
import uvloop
from hypothesis import settings
from tests import leaks

settings.register_profile("hearth", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("hearth")

DAEMON_FILES = ("test_serve.py", "test_recovery.py", "test_crash.py")
"""Their tests start daemons themselves."""
SLOW_FILES = (
    "agent/test_slow_clients.py",
    "contract/test_volume_backends.py",
    "engine/test_memory_image.py",
    "engine/qemu/test_merging.py",
    "engine/qemu/test_overlay.py",
    "network/test_egress.py",
    "network/test_fabric.py",
    "network/test_isolation.py",
    "network/test_rates.py",
    "server/test_execs.py",
    "store/test_postgresql.py",
    "store/test_upgrade.py",
    "volume/test_copying.py",
    "volume/test_file.py",
    "volume/test_locks.py",
)
"""Processes, mounts, namespaces and databases by the dozen; left out of `make check`, which is to take a minute."""
LONG_FILES = (
    "agent/test_suite_in_machine.py",
    "machines/test_attack.py",
    "machines/test_recovery.py",
    "machines/test_rootless.py",
    "machines/test_volume_recovery.py",
)
"""Minutes each: begun first, so that no worker is left alone with one at the end."""
TASK_END_ROUNDS = 10
"""Turns of the loop a task that was told to end may take to do so."""


GROUPS_BEFORE = pytest.StashKey[frozenset[str]]()
GROUPS_SETTLE_S = 5.0


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[GROUPS_BEFORE] = frozenset(leaks.control_groups())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Count the control groups of all workers together, once they have ended."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    before, deadline_s = session.config.stash[GROUPS_BEFORE], time.monotonic() + GROUPS_SETTLE_S
    while (left := set(leaks.control_groups()) - before) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    if left:
        print(f"\nleft behind by the whole run: {', '.join(sorted(left))}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config: pytest.Config) -> None:
    leaks.isolate()
    run = contextlib.ExitStack()
    run.enter_context(leaks.own_temporary_directory())
    config.add_cleanup(run.close)
    uvloop.new_event_loop().close()  # opens a pipe for signals, once per process, that stays


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


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, a namespace, a descriptor, a thread or the like."""
    before = leaks.take()
    yield
    found = leaks.left_behind(before)
    directory = request.node.funcargs.get("tmp_path")
    if isinstance(directory, Path):
        found += leaks.half_written(directory)
    if found:
        pytest.fail("left behind: " + "; ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def no_task_left_behind(request: pytest.FixtureRequest, nothing_left_behind: None) -> None:
    """Watch the tasks of asynchronous tests; the others are spared a loop, which is gone before the rest is counted."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("every_task_ended")


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
