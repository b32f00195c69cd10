"""Entry of the ``hearth`` command: a table of commands, of which only the chosen one is loaded."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

from hearth.cli import descriptors
from hearth.cli.arguments import Parser
from hearth.cli.child import become
from hearth.cli.exits import EXEC_FAILED, FAILED, INTERRUPTED, USAGE, leave_quietly, show_error, show_failed_output
from hearth.errors import HearthError
from hearth.version import VERSION

COMMANDS = {
    "create": "create a sandbox and wait until it runs",
    "exec": "run a command in a sandbox; one that sleeps is woken",
    "execs": "list the commands of a sandbox, running and ended",
    "logs": "show a command's output, from anywhere on, and follow it",
    "kill": "send a signal to commands in sandboxes",
    "list": "list sandboxes",
    "inspect": "show all about one sandbox, or why it ended",
    "edit": "change a sandbox's name, labels, network or time to live",
    "egress": "tell what a sandbox tried to reach and what refused it",
    "attack": "try from within a sandbox what must not work, and tell what held",
    "top": "watch what sandboxes use: CPU, memory, disk, network",
    "stop": "bring sandboxes to disk, memory and all",
    "start": "wake sandboxes ahead of their use",
    "pause": "stop the CPUs of sandboxes",
    "resume": "let the CPUs of paused sandboxes run again",
    "fork": "make copies of a living sandbox",
    "checkpoint": "keep a sandbox's memory and disk under a name",
    "restore": "make sandboxes that go on where a checkpoint was taken",
    "snapshots": "list, show and delete checkpoints",
    "volume": "make, list, attach and delete volumes, which outlive sandboxes",
    "destroy": "destroy sandboxes and all they hold",
    "ports": "list what listens in sandboxes",
    "forward": "lead local ports to ports of a sandbox",
    "publish": "give ports of a sandbox public URLs, list and remove them",
    "endings": "tell why destroyed sandboxes ended",
    "events": "tell what happened, and what happens as it happens",
    "jobs": "list, show and cancel what the daemon does for you",
    "template": "list, make and drop machines that are kept ready",
    "image": "list what sandboxes can be made of, and make more of it",
    "secret": "keep, list and forget what sandboxes are to know and nobody else",
    "user": "make, list, change and delete users",
    "key": "make, list, replace and revoke API keys",
    "quota": "show how much users have and may have, and say how much",
    "audit": "tell who changed what, from where, and what came of it",
    "serve": "run the daemon",
    "setup": "make everything this host needs: kernel, agent, root file systems",
    "doctor": "tell whether this host is fit, and what to do where it is not",
    "demo": "boot a sandbox, run commands in it, show what each step took",
    "bench": "measure this host",
    "version": "tell the version",
}
PASSED_ON = {"serve": ("hearth.server", ("serve",)), "bench": ("hearth.bench", ())}
"""Commands that are programs of their own: module and first words; the rest of the line is theirs to read."""
ALIASES = {
    "images": "image",
    "snapshot": "snapshots",
    "templates": "template",
    "users": "user",
    "secrets": "secret",
    "keys": "key",
    "volumes": "volume",
    "ls": "list",
    "ps": "execs",
    "--version": "version",
    "-V": "version",
}

HELP = """usage: hearth COMMAND [ARGUMENTS]

Gives every untrusted program a computer of its own.

commands:
{commands}

'hearth COMMAND --help' tells more about each. The daemon is found by HEARTH_URL and HEARTH_TOKEN,
else by its socket and admin.key in the data directory (HEARTH_DATA).
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit status; docs/cli.md lists them."""
    gc.disable()  # a command lives for moments; collecting while modules load costs 6 ms and frees nothing
    descriptors.complete()
    words = sys.argv[1:] if argv is None else argv
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_quietly()
    except OSError as error:
        show_failed_output(error)
        return EXEC_FAILED if words[:1] in (["exec"], ["logs"]) else FAILED
    return status


def _dispatch(words: list[str]) -> int:
    name = ALIASES.get(words[0], words[0]) if words else "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        sys.stdout.write(HELP.format(commands="\n".join(f"  {each:{width}}  {COMMANDS[each]}" for each in COMMANDS)))
        return 0 if words else USAGE
    if name not in COMMANDS:
        sys.stderr.write(f"hearth: there is no command {name!r}\n  'hearth --help' lists them\n")
        return USAGE
    if name == "version" and words[1:] == []:
        sys.stdout.write(f"hearth {VERSION}\n")
        return 0
    if name in PASSED_ON:
        module, first = PASSED_ON[name]
        become(module, [*first, *words[1:]])
    return _run(name, words[1:])


def _run(name: str, words: list[str]) -> int:
    command = import_module(f"hearth.cli.commands.{name}")
    parser = Parser(prog=f"hearth {name}", description=COMMANDS[name], usage_status=getattr(command, "USAGE", USAGE))
    command.add_arguments(parser)
    try:
        status: int = command.run(parser.parse_args(words))
    except HearthError as error:
        show_error(error)
        return FAILED
    return status
