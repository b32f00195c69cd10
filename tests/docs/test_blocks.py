"""What is seen of every block without running it: a test runs it or a reason stands there, and it can be read."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from tests.docs.pages import GOLDEN, LOCAL, MACHINES, RUN, SHOWN, Block, Page, every_page
from tests.docs.shell_lines import SUBSTITUTION, hearth_lines, steps_of_script, steps_of_transcript
from website.parsers import WrongUsage, actions_of, check_line, flags_of

from hearth.cli.command_table import ALIASES, COMMANDS

PAGES = every_page()
COMMANDS_SHOWN = [block for page in PAGES for block in page.commands]
LOOKS_LIKE_A_COMMAND = re.compile(r"(?m)^(?:\$ .*|(?:\S*/)?hearth +[a-z].*|(?:sudo|curl|systemctl|apt-get) .*)$")
INDENTED_COMMAND = re.compile(r"(?m)^    +(?:\$ |(?:\S*/)?hearth [a-z]|(?:sudo|curl|systemctl|apt-get) ).*$")
FENCE_LEFT = re.compile(r"(?m)^ *(?:```|~~~)")
CODE = re.compile(r"`([^`\n]+)`")
FLAG = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)")


def by_place(block: Block) -> str:
    return block.where


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_every_block_is_run_or_says_why_not(page: Page) -> None:
    assert page.runs_on in (LOCAL, MACHINES, GOLDEN)
    for block in page.blocks:
        assert block.language in RUN + SHOWN, f"{block.where}: say which language it is, one of {RUN + SHOWN}"
        assert not block.unread, f"{block.where}: what does {block.unread[0]!r} mean?"
        assert not block.is_output, f"{block.where}: an output stands behind what prints it"
        if block.language not in RUN:
            assert not LOOKS_LIKE_A_COMMAND.search(block.text), f"{block.where}: a command in a block that is not run"
        if block.not_run is not None:
            assert len(block.not_run) > 5, f"{block.where}: say why it is not run"
    assert not FENCE_LEFT.search(page.prose), f"{page.path}: a fence that is not three backticks and a language"
    found = INDENTED_COMMAND.search(page.prose)
    assert found is None, f"{page.path}: put it into a fenced block: {found and found[0].strip()}"


def test_the_blocks_that_are_not_run_are_counted_with_their_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = Counter(block.not_run for block in COMMANDS_SHOWN if block.not_run is not None)
    run = len(COMMANDS_SHOWN) - reasons.total()
    with capsys.disabled():
        print(f"\ndocumentation: {run} blocks are run, {reasons.total()} are not")
        for reason, count in reasons.most_common():
            print(f"  {count:3} {reason}")
    assert run > 2 * reasons.total(), "most of what the documentation shows has to be run"


@pytest.mark.parametrize("block", COMMANDS_SHOWN, ids=by_place)
def test_every_block_is_read_by_what_it_is_written_for(block: Block) -> None:
    if block.language == "python":
        compile(block.text, block.where, "exec")
        return
    steps = steps_of_transcript(block.text) if block.language == "console" else steps_of_script(block.text)
    assert steps
    for step in steps:
        for words in hearth_lines(step.command):
            try:
                check_line(words)
            except WrongUsage as wrong:
                pytest.fail(f"{block.where}: hearth {' '.join(words)}: {wrong}", pytrace=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_commands_named_in_the_text_exist_with_the_options_named_there(page: Page) -> None:
    if page.path == "CHANGELOG.md":
        return  # tells of what there was
    for code in CODE.findall(page.prose):
        words = code.split()
        if words[0] != "hearth" or len(words) < 2 or not words[1].isalpha() or words[1].isupper():
            continue
        assert words[1] in COMMANDS or words[1] in ALIASES or words[1] == "help", f"{page.path}: `{code}`"
        action = words[2] if len(words) > 2 else ""
        known = actions_of(words[1])
        assert not known or not re.fullmatch("[a-z-]+", action) or action in known, f"{page.path}: `{code}`"
        own = SUBSTITUTION.sub("", code).split(" -- ")[0]
        unknown = set() if words[1] == "help" else set(FLAG.findall(own)) - flags_of(words[1])
        assert not unknown, f"{page.path}: `{code}`: there is no {', '.join(sorted(unknown))}"
