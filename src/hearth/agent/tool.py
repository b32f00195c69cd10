"""Runs a program of the sandbox's root as the agent's own user, to its end or its time limit."""

from __future__ import annotations

import select

from hearth.agent.exit_watch import watch_child
from hearth.agent.spawn import Command, end_group, exit_code, spawn
from hearth.agent.state import DEFAULT_PATH, LANGUAGE, Agent

_ENVIRONMENT = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": LANGUAGE}


def run_tool(agent: Agent, argv: list[str], timeout_s: float) -> int:
    """Run a program without input and output and give its exit code. It is no activity.

    Raises:
        StartFailed: it could not be started.
        TimeoutError: it took too long and was killed, its group with it.
    """
    null = agent.doors.null
    command = Command(argv=argv, environment=_ENVIRONMENT, directory="/")
    pid = spawn(command, null, null, null)
    watch = watch_child(pid)
    agent.add_group(pid, is_job=False, is_use=False)
    poller = select.poll()
    poller.register(watch.fileno(), select.POLLIN)
    ended = bool(poller.poll(timeout_s * 1000))
    end_group(pid)
    agent.remove_group(pid, is_use=False)
    code = exit_code(watch.collect())
    if not ended:
        raise TimeoutError(f"{argv[0]} took longer than {timeout_s:g} s")
    return code
