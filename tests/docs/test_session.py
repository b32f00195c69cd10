"""The terminal that runs documents: a wrong status, a wrong output and a hang fail, whatever the block looks like."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import Block, read_page
from tests.docs.session import BlockFailed, Session, open_session
from tests.docs.shell_lines import hearth_lines, steps_of_script, steps_of_transcript


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    home = tmp_path / "home"
    home.mkdir()
    with open_session(home, tmp_path, {"PATH": "/usr/bin:/bin"}) as made:
        yield made


def blocks(text: str) -> tuple[Block, ...]:
    return read_page(text, "page.md").commands


def run(session: Session, text: str) -> None:
    for block in blocks(text):
        session.run_block(block)


GOOD = {
    "variables and directories last": "```bash\nmkdir a && cd a\nX=5\n```\n```console\n$ echo $X ${PWD##*/}\n5 a\n```",
    "a transcript with a continued command": "```console\n$ for n in 1 2; do\n>   echo $n\n> done\n1\n2\n```",
    "a status that is said": "<!-- exits: 7 -->\n```bash\ntrue\nsh -c 'exit 7'\n```",
    "what comes before is done first": "<!-- before: echo hi >f -->\n```console\n$ cat f\nhi\n```",
    "an output behind its block": "```bash\necho one two\n```\n\nIt prints:\n\n<!-- output -->\n```text\none ...\n```",
    "python goes on in one namespace": (
        "```python\nx = 6\n```\n\n```python\nprint(x * 7)\n```\n<!-- output -->\n```text\n42\n```"
    ),
    "python has the shell's environment": (
        "```bash\nexport COLOUR=red\n```\n```python\nimport os\nassert os.environ['COLOUR'] == 'red'\n```"
    ),
    "here-documents": "```bash\ncat >f <<'END'\nhearth $(\nEND\ngrep -q hearth f\n```",
    "a job in the background": "```bash\nsleep 100 &\nJOB=$!\n```\n```bash\nkill $JOB\n```",
}
BAD = {
    "a command in the middle fails": ("```bash\nfalse\ntrue\n```", "ended with 1, not with 0"),
    "a command in a pipe fails": ("```bash\nfalse | cat\n```", "ended with 1, not with 0"),
    "another status than is said": ("<!-- exits: 3 -->\n```bash\nsh -c 'exit 4'\n```", "ended with 4, not with 3"),
    "success where failure is said": ("<!-- exits: 3 -->\n```bash\ntrue\n```", "ended with 0, not with 3"),
    "another output": ("```console\n$ echo one\ntwo\n```", "printed:\n  | one"),
    "an output that is not shown": ("```console\n$ echo one\n$ echo two\ntwo\n```", "shown:\n  (nothing)"),
    "another output behind its block": ("```bash\necho 1\n```\n<!-- output -->\n```text\n2\n```", "printed:\n  | 1"),
    "an exception": ("```python\n1 / 0\n```", "ZeroDivisionError"),
    "an end of the shell": ("```bash\nexit 0\n```", "it ended the session"),
    "what comes before fails": ("<!-- before: false -->\n```bash\ntrue\n```", "ended with 1"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_a_block_that_does_what_it_says_passes(session: Session, text: str) -> None:
    run(session, text)


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=BAD)
def test_a_block_that_does_not_fails(session: Session, text: str, told: str) -> None:
    with pytest.raises(BlockFailed) as failed:
        run(session, text)
    assert told in str(failed.value)


def test_a_page_says_what_it_runs_on_and_what_is_not_run() -> None:
    page = read_page(
        "# A\n\n<!-- runs on: machines -->\n\n<!-- not run: needs systemd -->\n```bash\nsystemctl start hearth\n```\n\n"
        "text\n\n```bash\ntrue\n```\n",
        "page.md",
    )
    assert page.runs_on == "machines"
    assert [block.not_run for block in page.commands] == ["needs systemd", None]
    assert [block.line for block in page.commands] == [6, 12]


def test_text_between_a_comment_and_a_block_parts_them() -> None:
    (block,) = blocks("<!-- not run: needs systemd -->\n\nSomething else.\n\n```bash\ntrue\n```\n")
    assert block.not_run is None


def test_a_comment_that_says_nothing_we_know_is_kept_for_a_complaint() -> None:
    (block,) = blocks("<!-- not-run: needs systemd -->\n```bash\ntrue\n```\n")
    assert block.unread == ("not-run: needs systemd",)


@pytest.mark.parametrize("text", ["for x in 1; do", "echo 'open", "if"])
def test_a_script_that_bash_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(SyntaxError):
        steps_of_script(text)
    with pytest.raises(SyntaxError):
        steps_of_transcript(f"$ {text}")


SAID = {
    "hearth list | grep web": [["list"]],
    "X=1 sudo .venv/bin/hearth create web >log 2>&1 && hearth exec web -- true &": [
        ["create", "web"],
        ["exec", "web", "--", "true"],
    ],
    "hearth edit dev $(hearth egress dev --allow-list)": [
        ["egress", "dev", "--allow-list"],
        ["edit", "dev", "SUBSTITUTED"],
    ],
    "echo hearth list": [],
    "hearth exec web -- sh <<'END' | cat\nhearth list\nEND\n": [["exec", "web", "--", "sh"]],
    "for n in 1 2; do\n  hearth stop $n\n  hearth start $n\ndone": [["stop", "$n"], ["start", "$n"]],
    "hearth serve \\\n  --pool 3": [["serve", "--pool", "3"]],
}


@pytest.mark.parametrize(("command", "words"), SAID.items())
def test_what_is_said_to_hearth_is_found(command: str, words: list[list[str]]) -> None:
    assert list(hearth_lines(command)) == words
