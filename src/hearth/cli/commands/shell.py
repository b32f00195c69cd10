"""`hearth shell`: a terminal in a sandbox. Whoever leaves it by Ctrl-\\ comes back to it as it was."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence

from hearth.api.session_schemas import SessionView
from hearth.cli.arguments import add_env, read_duration, read_env
from hearth.cli.exits import EXEC_FAILED, show_error
from hearth.cli.shell_loop import Left, ShellLoop
from hearth.cli.terminal import need_terminal, terminal_size
from hearth.errors import HearthError, InvalidInput, NotFound
from hearth.sdk.async_client import AsyncClient, AsyncSandbox
from hearth.sdk.async_session import AsyncSession
from hearth.sdk.session_calls import TerminalOptions

USAGE = EXEC_FAILED
DETACH_KEY = "ctrl-\\"
NO_KEY = "none"
PASSED_ON = ("TERM", "COLORTERM")
"""What programs ask of the terminal that we are at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name; one that sleeps is woken")
    parser.add_argument("cmd", nargs="*", metavar="CMD", help="what to run behind '--' (default: a login shell)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-s", "--session", metavar="SESSION", help="come back to this one; 'hearth sessions' lists them")
    which.add_argument("-l", "--last", action="store_true", help="come back to the newest that nobody is at")
    add_env(parser)
    parser.add_argument("--cwd", metavar="DIR", help="directory to start in")
    parser.add_argument("-u", "--user", metavar="NAME", help="user to run as")
    parser.add_argument("--max-idle", metavar="TIME", help="end it after so long without anybody at it: 90s, 15m, 2h")
    parser.add_argument(
        "--detach-key",
        metavar="KEY",
        default=DETACH_KEY,
        help=f"leaves it, so that it goes on: ctrl-a to ctrl-z, ctrl-] and the like, or none (default: {DETACH_KEY})",
    )
    parser.epilog = "It ends with the shell's own exit status; 125 is a failure of hearth."


def run(arguments: argparse.Namespace) -> int:
    try:
        detach_byte = read_key(arguments.detach_key)
        options = options_of(arguments)
        need_terminal(arguments.sandbox)
        return asyncio.run(_run(arguments, options, detach_byte))
    except HearthError as error:
        show_error(error)
        return EXEC_FAILED


def read_key(text: str) -> int | None:
    """Read ``ctrl-a`` or ``none``: the byte a terminal sends for it.

    Raises:
        InvalidInput: it is no such key.
    """
    if text.lower() == NO_KEY:
        return None
    key = text.lower().removeprefix("ctrl-").upper()
    if len(text) != len("ctrl-x") or len(key) != 1 or not "@" <= key <= "_":
        raise InvalidInput(
            "invalid --detach-key",
            details=f"{text[:20]!r} is no key with ctrl",
            resolution="write it as ctrl-p, ctrl-] or none",
            field="--detach-key",
        )
    return ord(key) - ord("@")


def options_of(arguments: argparse.Namespace) -> TerminalOptions:
    """Give what was asked for a new terminal.

    Raises:
        InvalidInput: it goes with no session that there is, or cannot be read.
    """
    passed_on = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
    options: TerminalOptions = {"env": {**passed_on, **read_env(arguments.env)}}
    said = [
        name for name in ("cmd", "env", "cwd", "user", "max_idle") if getattr(arguments, name) not in (None, [])
    ]  # what argparse gives for what was not said
    if said and (arguments.session is not None or arguments.last):
        raise InvalidInput(
            "this session runs already",
            details=f"{said[0].replace('_', '-')} is for a new one",
            resolution="leave it out, or leave --session and --last out",
            field=said[0],
        )
    if arguments.cmd:
        options["cmd"] = arguments.cmd
    if arguments.cwd is not None:
        options["cwd"] = arguments.cwd
    if arguments.user is not None:
        options["user"] = arguments.user
    if arguments.max_idle is not None:
        options["max_idle_sec"] = round(read_duration(arguments.max_idle, what="--max-idle"))
    return options


async def _run(arguments: argparse.Namespace, options: TerminalOptions, detach_byte: int | None) -> int:
    async with AsyncClient() as client:
        sandbox = await client.get(arguments.sandbox)
        async with await _opening(sandbox, arguments, options) as session:
            if arguments.session is not None or arguments.last:
                await session.resize(*terminal_size())
            left = await ShellLoop(session, detach_byte=detach_byte).run()
            session_id = session.session_id
    return _told(left, arguments.sandbox, session_id)


async def _opening(
    sandbox: AsyncSandbox, arguments: argparse.Namespace, options: TerminalOptions
) -> contextlib.AbstractAsyncContextManager[AsyncSession]:
    session_id = arguments.session
    if arguments.last:
        session_id = last_detached(await sandbox.sessions.list()).session_id
    if session_id is not None:
        return sandbox.sessions.attach(session_id)
    options["rows"], options["cols"] = terminal_size()
    return sandbox.shell(**options)


def last_detached(sessions: Sequence[SessionView]) -> SessionView:
    """Give the newest terminal that runs and nobody is at.

    Raises:
        NotFound: there is none.
    """
    found = [each for each in sessions if each.tty and each.running and not each.attached]
    if not found:
        raise NotFound(
            "there is no terminal to come back to",
            details="none runs that nobody is at",
            resolution="leave --last out to start one; 'hearth sessions list' shows which there are",
        )
    return max(found, key=lambda each: each.created_at)


def _told(left: Left, sandbox: str, session_id: str) -> int:
    if left.exit_code is not None:
        return left.exit_code
    back = f"'hearth shell {sandbox} --session {session_id}' comes back"
    sys.stderr.write(f"\r\nhearth: left {session_id}, which goes on\n  {back}\n")
    return 0 if left.signal is None else 128 + left.signal
