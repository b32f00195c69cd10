"""`hearth shell` at a real pseudo-terminal: typing, sizes, leaving, coming back, and the terminal as it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.pseudo_terminal import PseudoTerminal, at_terminal
from tests.cli.test_main import run
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.cli.commands.shell import read_key
from hearth.cli.terminal import ScreenModes
from hearth.errors import InvalidInput
from hearth.sdk.client import Client, Sandbox

QUIET_SHELL = ("--", "sh", "-c", "PS1= exec sh -i")
DETACH = b"\x1c"
WAITS = """sh -c "trap 'echo {word}; exit' {signal}; echo s''et; while :; do sleep 0.05; done"\n"""
"""A program that says ``word`` when it gets a signal."""


@pytest.fixture
def own(client: Client) -> Iterator[Sandbox]:
    """A sandbox of the test's own, named ``box``: its sessions end with it."""
    with client.create(name="box") as made:
        yield made


def begin(terminal: PseudoTerminal) -> None:
    """Wait until the shell reads what is typed, without an echo of it to be mistaken for output."""
    terminal.type("stty -echo; echo rea''dy\n")
    terminal.wait_for("ready\r\n")


def test_what_is_typed_runs_and_the_status_is_the_shells(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.type("echo one; tty >/dev/null && echo a-terminal $TERM\n")
        terminal.wait_for("one\r\na-terminal xterm\r\n")
        terminal.type("exit 7\n")
        assert terminal.wait() == 7
        assert terminal.is_as_before


def test_the_size_is_the_terminals_from_the_start_and_follows_it(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL, rows=31, cols=97) as terminal:
        begin(terminal)
        terminal.type("stty size\n")
        terminal.wait_for("31 97\r\n")
        terminal.resize(50, 132)
        terminal.type("until [ \"$(stty size)\" = '50 132' ]; do sleep 0.05; done; echo res''ized\n")
        terminal.wait_for("resized\r\n")
        terminal.type(DETACH)
        assert terminal.wait() == 0


def test_keys_go_to_the_program_and_interrupt_it_there(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.type(WAITS.format(signal="INT", word="interr''upted"))
        terminal.wait_for("set\r\n")
        terminal.type(b"\x03")
        terminal.wait_for("interrupted\r\n")
        terminal.type("exit\n")
        terminal.wait()
        assert terminal.is_as_before


def test_who_leaves_comes_back_to_what_was_shown(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.type("kept=here; echo before\n")
        terminal.wait_for("before\r\n")
        terminal.type(DETACH)
        assert terminal.wait() == 0
        assert terminal.is_as_before
        assert b"hearth shell box --session " in terminal.shown
    [session] = json.loads(run(daemon, "sessions", "list", "--json", "box")[1])
    assert (session["running"], session["attached"], session["tty"]) == (True, False, True)
    for words in (("--session", session["session_id"]), ("--last",)):
        with at_terminal(daemon.environment, "shell", "box", *words) as terminal:
            terminal.wait_for("before\r\n")
            terminal.type("echo $kept\n")
            terminal.wait_for("here\r\n")
            terminal.type(DETACH)
            assert terminal.wait() == 0
    status, _, err = run(daemon, "sessions", "end", "box", session["session_id"])
    assert (status, "--yes" in err) == (1, True)
    assert run(daemon, "sessions", "end", "-y", "box", session["session_id"])[0] == 0
    with at_terminal(daemon.environment, "shell", "box", "--last") as terminal:
        assert terminal.wait() == 125
        assert b"no terminal to come back to" in terminal.shown


def test_a_terminal_outlives_its_daemon(tmp_path: Path) -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon, daemon.client() as client:
            client.create(name="box")
            with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
                begin(terminal)
                terminal.type(f"kept=here; echo going >{tmp_path}/told; echo go''ing\n")
                terminal.wait_for("going\r\n")
                daemon.process.kill()
                daemon.process.wait()
                terminal.type("echo while it was away: $kept\n")
                with running_daemon(data) as again:
                    terminal.wait_for("while it was away: here\r\n")
                    terminal.type("exit 5\n")
                    assert terminal.wait() == 5
                    assert again.process.poll() is None
                assert terminal.is_as_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_as_it_was(daemon: RunningDaemon, own: Sandbox, number: signal.Signals) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.type("printf '\\033[?1049h\\033[?25lx'\n")
        terminal.wait_for("\x1b[?25lx")
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number
        assert terminal.is_as_before
        assert b"\x1b[?1049l" in terminal.shown
        assert b"\x1b[?25h" in terminal.shown


def test_a_session_that_another_takes_over_ends_with_words(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as first:
        begin(first)
        [session] = own.sessions.list()
        with at_terminal(daemon.environment, "shell", "box", "--session", session.session_id) as second:
            assert first.wait() == 125
            assert first.is_as_before
            assert b"hearth: " in first.shown
            second.type("exit\n")
            assert second.wait() == 0


def test_a_sandbox_that_goes_ends_the_shell_with_words(daemon: RunningDaemon, client: Client) -> None:
    client.create(name="brief")
    with at_terminal(daemon.environment, "shell", "brief", *QUIET_SHELL) as terminal:
        begin(terminal)
        client.destroy("brief")
        status = terminal.wait()
        assert terminal.is_as_before
        assert (status, b"hearth: " in terminal.shown) == (125, True)


def test_a_terminal_that_is_hung_up_leaves_the_session_running(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.hang_up()
        terminal.process.wait(60)
    assert [each.running for each in own.sessions.list()] == [True]


def test_another_key_leaves_and_the_usual_one_is_passed_on(daemon: RunningDaemon, own: Sandbox) -> None:
    words = ("shell", "--detach-key", "ctrl-p", "box", *QUIET_SHELL)
    with at_terminal(daemon.environment, *words) as terminal:
        begin(terminal)
        terminal.type(WAITS.format(signal="QUIT", word="qu''it"))
        terminal.wait_for("set\r\n")
        terminal.type(DETACH)
        terminal.wait_for("quit\r\n")
        terminal.type(b"\x10")
        assert terminal.wait() == 0


def test_without_a_terminal_the_next_step_is_told(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, out, err = run(daemon, "shell", "shared", stdin=b"echo hello\n")
    assert (status, out) == (125, "")
    assert "needs a terminal" in err
    assert "hearth exec shared" in err


def test_what_is_for_a_new_session_goes_with_no_other(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, _, err = run(daemon, "shell", "shared", "--session", "s1", "--cwd", "/tmp")
    assert (status, "cwd" in err) == (125, True)


@pytest.mark.parametrize(("text", "byte"), [("ctrl-\\", 0x1C), ("ctrl-a", 1), ("CTRL-]", 0x1D), ("none", None)])
def test_keys_are_read(text: str, byte: int | None) -> None:
    assert read_key(text) == byte


@pytest.mark.parametrize("text", ["", "a", "ctrl-", "ctrl-ab", "ctrl-1", "alt-a"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="detach-key"):
        read_key(text)


@pytest.mark.parametrize(
    ("shown", "undone"),
    [
        ([b""], b""),
        ([b"plain"], b"\x1b[0m"),
        ([b"\x1b[?1049h", b"vim", b"\x1b[?1049l"], b"\x1b[0m"),
        ([b"\x1b[?104", b"9h"], b"\x1b[?1049l\x1b[0m"),
        ([b"\x1b", b"[?25", b"l"], b"\x1b[?25h\x1b[0m"),
        ([b"\x1b[?1000;1006h"], b"\x1b[?1000l\x1b[?1006l\x1b[0m"),
        ([b"\x1b[?9999h"], b"\x1b[0m"),
    ],
)
def test_what_a_program_left_behind_on_the_screen_is_undone(shown: list[bytes], undone: bytes) -> None:
    screen = ScreenModes()
    for data in shown:
        screen.feed(data)
    assert screen.undo() == undone


def test_the_terminal_is_given_back_while_we_stand_still(daemon: RunningDaemon, own: Sandbox) -> None:
    with at_terminal(daemon.environment, "shell", "box", *QUIET_SHELL) as terminal:
        begin(terminal)
        terminal.process.send_signal(signal.SIGTSTP)
        _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert terminal.is_as_before
        terminal.process.send_signal(signal.SIGCONT)
        terminal.type("echo aga''in\n")
        terminal.wait_for("again\r\n")
        terminal.type("exit\n")
        assert terminal.wait() == 0
