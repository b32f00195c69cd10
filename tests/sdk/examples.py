"""The examples in the docstrings of the SDK: collected, and carried out line by line as an interpreter would.

Doctest's own runner knows no ``await``; its parser and its comparison are used.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hearth.sdk import async_client, client
from hearth.sdk.async_commands import AsyncCommands
from hearth.sdk.async_events import AsyncEvents
from hearth.sdk.async_files import AsyncFiles
from hearth.sdk.async_images import AsyncImages
from hearth.sdk.async_ports import AsyncPorts
from hearth.sdk.async_provisioning import AsyncProvisioning
from hearth.sdk.async_running import AsyncRunning
from hearth.sdk.async_secrets import AsyncSecrets
from hearth.sdk.async_session import AsyncSession
from hearth.sdk.async_sessions import AsyncSessions
from hearth.sdk.async_templates import AsyncTemplates
from hearth.sdk.async_users import AsyncUsers
from hearth.sdk.commands import Commands
from hearth.sdk.events import Events
from hearth.sdk.files import Files
from hearth.sdk.images import Images
from hearth.sdk.ports import Ports
from hearth.sdk.provisioning import Provisioning
from hearth.sdk.results import Result
from hearth.sdk.running import Running
from hearth.sdk.secrets import Secrets
from hearth.sdk.session import Session
from hearth.sdk.sessions import Sessions
from hearth.sdk.templates import Templates
from hearth.sdk.users import Users

BLOCKING: tuple[type[object], ...] = (
    client.Client,
    client.Sandbox,
    Commands,
    Running,
    Events,
    Files,
    Images,
    Provisioning,
    Secrets,
    Session,
    Sessions,
    Templates,
    Users,
    Ports,
    Result,
)
ASYNCHRONOUS: tuple[type[object], ...] = (
    async_client.AsyncClient,
    async_client.AsyncSandbox,
    AsyncCommands,
    AsyncRunning,
    AsyncEvents,
    AsyncFiles,
    AsyncImages,
    AsyncProvisioning,
    AsyncSecrets,
    AsyncSession,
    AsyncSessions,
    AsyncTemplates,
    AsyncUsers,
    AsyncPorts,
)
OF_MACHINES = frozenset(
    {
        "attach_volume",
        "checkpoint",
        "delete_snapshot",
        "delete_machine_template",
        "detach_volume",
        "fork",
        "pause",
        "resume",
        "resume_snapshot",
        "save_image",
        "snapshot",
        "stop",
        "warm_machine_template",
    }
)
"""Operations of clients and sandboxes that the development engine's machines have not: they neither sleep nor copy."""
PAGE = Path(__file__).parents[2] / "docs" / "sdk-operations.md"
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A public member of a class of the SDK."""

    owner: type[object]
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}"

    @property
    def examples(self) -> list[doctest.Example]:
        """What its docstring shows."""
        return doctest.DocTestParser().get_examples(self.text, str(self))

    @property
    def sentence(self) -> str:
        """What its docstring begins with, in one line."""
        return " ".join(self.text.partition("\n\n")[0].split()).replace("|", "\\|")

    @property
    def needs_machine(self) -> bool:
        """Whether a real machine must carry it out."""
        owner = self.owner.__name__.removeprefix("Async")
        return (self.name in OF_MACHINES and owner in ("Client", "Sandbox")) or (owner, self.name) == ("Images", "save")


def operations(*owners: type[object]) -> list[Operation]:
    """Give all public methods and properties, those that are inherited included."""
    found = []
    for owner in owners:
        for name in dir(owner):
            value = inspect.getattr_static(owner, name)
            if not name.startswith("_") and isinstance(value, property | classmethod | staticmethod | Callable):
                found.append(Operation(owner=owner, name=name, text=inspect.getdoc(getattr(owner, name)) or ""))
    return found


def carry_out(operation: Operation, names: dict[str, Any], wait: Callable[[Any], Any]) -> None:
    """Carry an operation's examples out; what they print must be what is written.

    Args:
        names: what they may use.
        wait: gives the result of a coroutine.
    """
    for number, example in enumerate(operation.examples):
        got, error = _result(example, f"<{operation}:{number}>", names, wait)
        if error is not None and example.exc_msg is None:
            raise error
        wanted = example.want if example.exc_msg is None else example.exc_msg
        checker = doctest.OutputChecker()
        shown = got if error is None else "".join(traceback.format_exception_only(error))
        assert checker.check_output(wanted, shown, OPTIONS), (
            f"{operation}: {example.source}gave {shown!r}, not {wanted!r}"
        )


def _result(
    example: doctest.Example, place: str, names: dict[str, Any], wait: Callable[[Any], Any]
) -> tuple[str, Exception | None]:
    code = compile(example.source, place, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    output, shown = io.StringIO(), sys.displayhook
    sys.displayhook = sys.__displayhook__
    try:
        with contextlib.redirect_stdout(output):
            value = eval(code, names)
            if inspect.iscoroutine(value):
                wait(value)
    except Exception as error:  # noqa: BLE001 - it is compared with what the example says
        return output.getvalue(), error
    finally:
        sys.displayhook = shown
    return output.getvalue(), None


def page() -> str:
    """Give docs/sdk-operations.md: every operation of the blocking half, and how many lines its example has."""
    lines = [
        "# Every operation of the SDK",
        "",
        "This page lists what the classes of the SDK do. Each operation has an example in its docstring",
        "(`help(Sandbox.run)` shows it), and every example is run by a test. `AsyncClient` and so on have the same",
        "operations with `await`. The list is made by `make twins`.",
    ]
    for owner in BLOCKING:
        lines += ["", f"## {owner.__name__}", "", "| operation | does | lines of example |", "| --- | --- | --- |"]
        for operation in operations(owner):
            lines.append(f"| `{operation.name}` | {operation.sentence} | {len(operation.examples)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
