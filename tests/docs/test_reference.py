"""The reference names all there is: every command, action and option, every call; docs/cli.md tells of each command."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import ROOT
from website.parsers import WrongUsage, check_line, every_command
from website.reference import calls_page, commands_page

from hearth.api.operations import OPERATIONS
from hearth.cli.command_table import COMMANDS


def test_the_made_page_has_every_command_action_and_option() -> None:
    page = commands_page()
    commands = list(every_command())
    assert {each.words.split()[1] for each in commands} == set(COMMANDS)
    for command in commands:
        section = re.split(r"\n#{2,3} ", page.partition(f"# {command.words}\n")[2])[0]
        assert section, command.words
        for option in command.options:
            for flag in option.flags:
                assert f"{flag}" in section, f"{command.words} {flag}"


def test_every_option_has_a_help() -> None:
    without = [f"{c.words} {o.spelled}" for c in every_command() for o in c.options if o.flags and not o.help]
    assert not without


def test_the_written_page_tells_of_every_command_and_action() -> None:
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([^`]*)`", text))
    words = {" ".join(code.split()[: count + 1]) for code in told for count in range(3)}
    missing = []
    for command in every_command():
        parts = command.words.split()
        if command.words in words:
            continue
        # an action may be told of in the row of its command, by its own name
        rows = [line for line in text.splitlines() if f"`hearth {parts[1]}" in line]
        if len(parts) < 3 or not any(re.search(rf"`{parts[2]}\b", row) for row in rows):
            missing.append(command.words)
    assert not missing, f"docs/cli.md says nothing of {', '.join(missing)}"


def test_the_made_page_has_every_call() -> None:
    page = calls_page()
    for operation in OPERATIONS:
        assert re.search(rf"### `{operation.method} [^`]*{re.escape(operation.path)}`", page), operation.name


@pytest.mark.parametrize(
    "line",
    ["creat web", "create --no-such-option web", "volume attach web", "serve --listen", "bench --no-such-option"],
)
def test_a_line_that_no_parser_takes_is_refused(line: str) -> None:
    with pytest.raises((WrongUsage, SystemExit)):
        check_line(line.split())


@pytest.mark.parametrize("line", ["create web", "exec web -- ls --all", "serve --pool 3", "bench --list", "images"])
def test_a_line_that_a_parser_takes_is_accepted(line: str) -> None:
    check_line(line.split())
