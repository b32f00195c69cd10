"""The command line as its user meets it: a real process at a real daemon."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.cli.command_table import COMMANDS
from hearth.sdk.client import Client, Sandbox
from hearth.version import VERSION

END_S = 120


def run(daemon: RunningDaemon, *words: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Run a command and give status, stdout and stderr."""
    done = run_cli(daemon.environment, *words, stdin=stdin)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("words", [("--version",), ("version",), ("-V",)])
def test_the_version_is_told(daemon: RunningDaemon, words: tuple[str, ...]) -> None:
    assert run(daemon, *words) == (0, f"hearth {VERSION}\n", "")
    assert json.loads(run(daemon, "version", "--json")[1]) == {"version": VERSION}


def test_help_lists_every_command_and_each_has_its_own(daemon: RunningDaemon) -> None:
    status, out, _ = run(daemon, "--help")
    assert status == 0
    assert all(f"\n  {name} " in out for name in COMMANDS)
    for name in COMMANDS:
        status, out, _ = run(daemon, name, "--help")
        assert (status, "usage:" in out) == (0, True)


@pytest.mark.parametrize("words", [(), ("paint",), ("list", "--colour"), ("inspect",), ("create", "--cpus", "many")])
def test_wrong_usage_ends_with_2_and_the_next_step(daemon: RunningDaemon, words: tuple[str, ...]) -> None:
    status, out, err = run(daemon, *words)
    assert status == 2
    assert "--help" in out + err


def test_a_sandbox_from_birth_to_end(daemon: RunningDaemon) -> None:
    words = ("create", "cli-life", "--label", "a=b", "-e", "GREETING=hello", "--memory-mb", "128")
    assert run(daemon, *words) == (0, "cli-life\n", "")
    view = json.loads(run(daemon, "inspect", "cli-life", "--json")[1])
    assert (view["name"], view["state"], view["labels"], view["memory_mb"]) == ("cli-life", "running", {"a": "b"}, 128)
    assert "hello" not in json.dumps(view)
    assert run(daemon, "exec", "cli-life", "sh", "-c", "echo $GREETING") == (0, "hello\n", "")
    assert [each["name"] for each in json.loads(run(daemon, "list", "--label", "a=b", "--json")[1])] == ["cli-life"]
    heading, *rows = run(daemon, "list", "-l", "a=b")[1].splitlines()
    assert heading.split()[:3] == ["NAME", "ID", "STATE"]
    assert [row.split()[0] for row in rows] == ["cli-life"]
    assert "step " in run(daemon, "inspect", view["id"])[1]
    assert run(daemon, "destroy", "--yes", "cli-life") == (0, "cli-life\n", "")
    status, out, _ = run(daemon, "inspect", "cli-life")
    assert (status, "destroyed" in out) == (0, True)
    status, _, err = run(daemon, "inspect", "cli-never")
    assert (status, "no such sandbox" in err) == (1, True)


def test_output_streams_stay_apart_and_the_exit_code_is_the_commands(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, "exec", "shared", "sh", "-c", "echo out; echo err >&2; exit 7") == (7, "out\n", "err\n")


def test_stdin_is_piped_through_and_binary_stays_binary(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 100
    done = run_cli(daemon.environment, "exec", "shared", "--", "cat", stdin=data)
    assert (done.returncode, done.stdout) == (0, data)
    assert run(daemon, "exec", "-n", "shared", "cat", stdin=b"not this") == (0, "", "")


def test_options_of_exec_reach_the_command(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    words = ("exec", "-e", "A=1", "-e", "B=2 3", "--cwd", "/usr", "shared", "sh", "-c", 'echo "$A $B"; pwd')
    assert run(daemon, *words) == (0, "1 2 3\n/usr\n", "")


def test_json_of_exec_is_one_document(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    status, out, _ = run(daemon, "exec", "--json", "shared", "sh", "-c", "echo a; exit 4")
    assert status == 4
    assert json.loads(out) == {"exit_code": 4, "stdout": "a\n", "stderr": "", "truncated": False}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("shared", "/nonexistent"), 127, "No such file"),
        (("shared", "/etc/passwd"), 126, "Permission denied"),
        (("--timeout", "1", "shared", "sleep", "1000"), 124, "too long"),
        (("nosuch", "true"), 125, "nosuch"),
        (("shared",), 125, "CMD"),
        (("--timeout", "0", "shared", "true"), 125, "timeout_sec"),
        (("--colour", "shared", "true"), 125, "--help"),
        (("-e", "A", "shared", "true"), 125, "KEY=VALUE"),
    ],
)
def test_hearths_own_failures_of_an_exec_begin_at_124(
    daemon: RunningDaemon, sandbox: Sandbox, words: tuple[str, ...], status: int, said: str
) -> None:
    ended, out, err = run(daemon, "exec", *words)
    assert (ended, out) == (status, "")
    assert said in err


def test_what_came_of_each_of_several_is_told_as_json(daemon: RunningDaemon, client: Client) -> None:
    client.create(name="of-two")
    status, out, err = run(daemon, "destroy", "--yes", "--json", "never-made", "of-two")
    missing, made = json.loads(out)
    assert (status, "never-made" in err) == (1, True)
    assert (missing["name"], missing["done"], missing["code"]) == ("never-made", False, "not_found")
    assert made == {"name": "of-two", "done": True}


def test_a_log_is_followed_as_json_a_line_each(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    started = sandbox.detach(["sh", "-c", r"echo text; printf '\377' >&2"])
    status, out, _ = run(daemon, "logs", "--follow", "--json", started.id)
    lines = {line["stream"]: line for line in map(json.loads, out.splitlines())}
    assert (status, lines["stdout"]["data"], lines["stderr"]["encoding"]) == (0, "text\n", "base64")


def test_destroying_without_a_terminal_needs_yes(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="keep-me"):
        status, out, err = run(daemon, "destroy", "keep-me")
        assert (status, out, "--yes" in err) == (1, "", True)
        assert client.get("keep-me").view.state == "running"


@pytest.mark.parametrize(("answer", "destroyed"), [(b"y\n", True), (b"n\n", False), (b"\n", False)])
def test_at_a_terminal_destroying_asks(daemon: RunningDaemon, client: Client, answer: bytes, destroyed: bool) -> None:
    sandbox = client.create(name="asked-for")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [sys.executable, "-m", "hearth.cli", "destroy", "asked-for"],
            env=daemon.environment,
            stdin=theirs,
            capture_output=True,
            timeout=END_S,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"asked-for" in done.stderr
    assert (done.returncode == 0) is destroyed
    if not destroyed:
        sandbox.destroy()
    assert not client.list({"name": "asked-for"})


def test_one_of_several_that_is_not_there_does_not_keep_the_others(daemon: RunningDaemon, client: Client) -> None:
    client.create(name="first-of-two")
    status, out, err = run(daemon, "destroy", "-y", "nosuch", "first-of-two")
    assert (status, out, "nosuch" in err) == (1, "first-of-two\n", True)


def test_images_are_listed_under_both_names(daemon: RunningDaemon) -> None:
    assert {each["name"] for each in json.loads(run(daemon, "image", "list", "--json")[1])} == {
        "kernel",
        "agent",
        "debian",
    }
    assert run(daemon, "images")[1].splitlines()[0].split()[:2] == ["NAME", "KIND"]


def test_without_a_daemon_the_next_step_is_said(tmp_path: Path) -> None:
    done = run_cli({"HEARTH_DATA": str(tmp_path), "PATH": os.environ["PATH"]}, "list")
    assert done.returncode == 1
    assert b"hearth serve" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_wrong_token_is_said(daemon: RunningDaemon) -> None:
    done = run_cli({**daemon.environment, "HEARTH_TOKEN": "hk_wrong"}, "list")
    assert (done.returncode, b"Traceback" in done.stderr) == (1, False)
    assert b"token" in done.stderr or b"key" in done.stderr


def test_a_terminal_gets_its_table_with_names_that_no_markup_can_change(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="on-a-terminal", labels={"x": "[red]y[/red]"}):
        ours, theirs = pty.openpty()
        try:
            subprocess.run(
                [sys.executable, "-m", "hearth.cli", "list", "-l", "x=[red]y[/red]"],
                env={**daemon.environment, "COLUMNS": "200", "TERM": "xterm"},
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                timeout=END_S,
                check=True,
            )
            shown = b""
            while b"[red]y[/red]" not in shown:  # the kernel may hand it on in pieces
                shown += os.read(ours, 65536)
        finally:
            os.close(ours)
            os.close(theirs)
    assert b"on-a-terminal" in shown
    assert b"\x1b[32mrunning" in shown


def test_an_interrupt_ends_the_command_in_the_sandbox_too(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "hearth.cli", "exec", "shared", "sh", "-c", "echo $$; sleep 1000"],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        descriptor = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.send_signal(signal.SIGINT)
            assert process.wait(END_S) == 130
            assert select.select([descriptor], [], [], END_S)[0]
        finally:
            os.close(descriptor)


def test_a_reader_that_leaves_ends_the_command_quietly(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "hearth.cli", "exec", "shared", "yes"],
        env=daemon.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(END_S) == 141
        assert process.stderr.read() == b""


def test_the_daemon_is_started_by_the_same_command(daemon: RunningDaemon) -> None:
    status, _, err = run(daemon, "serve", "--engine", "local")
    assert (status, str(daemon.process.pid) in err) == (1, True)


def test_exec_loads_neither_rich_nor_asyncio(daemon: RunningDaemon) -> None:
    heavy = "{'rich', 'asyncio', 'starlette'}"
    script = f"import sys, hearth.cli.main, hearth.cli.commands.exec; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=END_S)
    assert done.stdout.strip() == ""
