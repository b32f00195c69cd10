"""`hearth exec`: runs a command in a sandbox as if it were here. Its output, its exit code; ours begin at 124."""

from __future__ import annotations

import argparse

from hearth.api.limits import MAX_BUFFERED_OUTPUT_BYTES
from hearth.cli.arguments import add_env, add_json, read_env
from hearth.cli.descriptors import STDERR, STDOUT, write_all
from hearth.cli.exec_input import NOTHING, Feeder, read_head
from hearth.cli.exits import EXEC_FAILED, exec_status, show_error
from hearth.cli.secrets import read_variables
from hearth.cli.show import show_json
from hearth.errors import HearthError, InvalidInput
from hearth.sdk.calls import ExecOptions
from hearth.sdk.client import Client
from hearth.sdk.results import Result

USAGE = EXEC_FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_env(parser)
    parser.add_argument(
        "--secret",
        metavar="[VARIABLE=]NAME",
        action="append",
        default=[],
        help="give it a secret of yours as a variable; repeatable",
    )
    parser.add_argument("--cwd", metavar="DIR", help="directory to start in")
    parser.add_argument("-u", "--user", metavar="NAME", help="user to run as")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="kill it after so long (default: 300)")
    parser.add_argument("-n", "--no-stdin", action="store_true", help="give it no input, even if ours is no terminal")
    parser.add_argument(
        "-d", "--detach", action="store_true", help="do not wait for it; print its id for 'hearth logs'"
    )
    add_json(parser)
    # One positional for all that follows: argparse would swallow the '--' behind a sandbox of its own.
    parser.add_argument("words", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.usage = "hearth exec [OPTIONS] SANDBOX [--] CMD [ARGUMENT ...]"


def run(arguments: argparse.Namespace) -> int:
    try:
        sandbox, cmd = split_words(arguments.words)
        options: ExecOptions = {
            "env": read_env(arguments.env),
            "cwd": arguments.cwd,
            "user": arguments.user,
        }
        head = NOTHING if arguments.no_stdin else read_head()
        options["stdin"] = head.data
        if not head.is_whole:
            options["keep_stdin"] = True
        if arguments.secret:
            options["secrets"] = read_variables(arguments.secret)
        if arguments.timeout is not None:
            options["timeout_sec"] = arguments.timeout
        with Client() as client:
            if arguments.detach:
                return _detached(client, sandbox, cmd, options, json=arguments.json)
            if arguments.json and head.is_whole:
                return _shown(client.run(sandbox, cmd, **options))
            return _streamed(client, sandbox, cmd, options, json=arguments.json)
    except HearthError as error:
        show_error(error)
        return exec_status(error)


def split_words(words: list[str]) -> tuple[str, list[str]]:
    """Give the sandbox and the command, without the ``--`` that may stand between them.

    Raises:
        InvalidInput: one is missing, or an option of ours stands where the command should be.
    """
    sandbox, cmd = words[:1], words[1:]
    if cmd[:1] == ["--"]:
        cmd = cmd[1:]
    elif cmd and cmd[0].startswith("-"):
        raise InvalidInput(
            "the command begins with an option",
            details=f"{cmd[0]!r} comes after the sandbox",
            resolution="put options of hearth before the sandbox, or '--' before the command",
            field="CMD",
        )
    if not sandbox or not cmd:
        raise InvalidInput(
            "no command" if sandbox else "no sandbox and no command",
            details="CMD is missing" if sandbox else "SANDBOX and CMD are missing",
            resolution="write 'hearth exec SANDBOX CMD ...'",
            field="CMD",
        )
    return sandbox[0], cmd


def _streamed(client: Client, sandbox: str, cmd: list[str], options: ExecOptions, *, json: bool) -> int:
    """Run it and pass on its output as it comes, or as one document at its end."""
    kept, truncated = {"stdout": bytearray(), "stderr": bytearray()}, False
    with client.stream(sandbox, cmd, **options) as running:
        feeder = Feeder(running.exec_id)
        if options.get("keep_stdin"):
            feeder.start()
        for output in running:
            if json:
                room = MAX_BUFFERED_OUTPUT_BYTES - len(kept[output.stream])
                truncated = truncated or len(output.data) > room
                kept[output.stream] += output.data[: max(0, room)]
            else:
                write_all(STDOUT if output.stream == "stdout" else STDERR, output.data)
        if feeder.error is not None:
            raise feeder.error
    if not json:
        return running.exit_code
    stdout, stderr = bytes(kept["stdout"]), bytes(kept["stderr"])
    return _shown(Result(exit_code=running.exit_code, stdout_bytes=stdout, stderr_bytes=stderr, truncated=truncated))


def _shown(result: Result) -> int:
    show_json(
        {
            "exit_code": result.exit_code,
            "stdout": result.stdout,
            "stderr": result.stderr,
            "truncated": result.truncated,
        }
    )
    return result.exit_code


def _detached(client: Client, sandbox: str, cmd: list[str], options: ExecOptions, *, json: bool) -> int:
    started = client.commands.detach(sandbox, cmd, **options)
    if json:
        show_json(started)
    else:
        print(started.id, flush=True)
    if options.get("keep_stdin"):
        feeder = Feeder(started.id)
        feeder.run()  # whoever detaches waits for the input to be there, and for nothing else
        if feeder.error is not None:
            raise feeder.error
    return 0
