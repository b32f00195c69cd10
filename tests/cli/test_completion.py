"""Completion, asked of the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cli.pseudo_terminal import WAIT_S
from tests.cli.test_main import run
from tests.server.daemon import RunningDaemon

from hearth.cli.command_table import ALIASES, COMMANDS, PASSED_ON
from hearth.cli.command_words import places
from hearth.sdk.client import Client, Sandbox

Complete = Callable[..., set[str]]
BASH = """
source "$SCRIPT"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_hearth
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
compdef() { :; }
compadd() { shift; print -l -- "$@"; }
_files() { print -l -- *(N); }
source "$SCRIPT"
words=("$@"); CURRENT=$#
_hearth
"""
FISH = "source $SCRIPT; complete -C (string join ' ' -- $argv)"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a program ``hearth``, its scripts, and a file to complete."""
    made = tmp_path_factory.mktemp("completion")
    program = made / "hearth"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m hearth.cli "$@"\n')
    program.chmod(0o755)
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run([program, "completion", shell], capture_output=True, timeout=WAIT_S, check=True)
        (made / f"script.{shell}").write_bytes(done.stdout)
    return made


@pytest.fixture(params=["bash", "zsh", "fish"])
def complete(request: pytest.FixtureRequest, daemon: RunningDaemon, here: Path) -> Iterator[Complete]:
    """Give what a shell offers for words, of which the last is being typed."""
    shell = str(request.param)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    path = f"{here}:{os.environ['PATH']}"
    home = {"HOME": str(here), "XDG_CONFIG_HOME": str(here), "XDG_DATA_HOME": str(here), "XDG_CACHE_HOME": str(here)}
    environment = {**daemon.environment, **home, "PATH": path, "SCRIPT": str(here / f"script.{shell}")}
    start = {
        "bash": ["bash", "--norc", "-c", BASH, "bash"],
        "zsh": ["zsh", "-f", "-c", ZSH, "zsh"],
        "fish": ["fish", "--no-config", "-c", FISH],
    }[shell]

    def ask(*words: str) -> set[str]:
        done = subprocess.run(
            [*start, "hearth", *words],
            env=environment,
            cwd=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert done.stderr == ""
        offered = {line.partition("\t")[0] for line in done.stdout.split("\n")} - {""}
        return {word for word in offered if word.startswith(words[-1])}

    yield ask


def test_commands_and_their_other_words_are_completed(complete: Complete) -> None:
    assert complete("") >= {*COMMANDS, "volumes", "ls"}
    assert complete("sna") == {"snapshots", "snapshot"}
    assert complete("volume", "") >= {"list", "create", "attach"}
    assert complete("volumes", "cl") == {"clone"}


def test_options_are_completed_where_they_are(complete: Complete) -> None:
    assert {"--image", "--ttl", "-l"} <= complete("create", "-")
    assert complete("volume", "delete", "--y") == {"--yes"}
    assert complete("serve", "--idle-p") == {"--idle-pause"}
    assert complete("list", "--ttl") == set()


def test_values_of_options_are_completed(complete: Complete) -> None:
    assert complete("create", "--net", "") == {"deny", "public"}
    assert complete("create", "--net", "deny", "--image", "") == {"debian"}
    assert complete("create", "--cpus", "") == set()
    assert "script.bash" in complete("serve", "--config", "script")
    assert complete("completion", "") >= {"bash", "zsh", "fish"}


def test_names_of_sandboxes_are_completed(complete: Complete, sandbox: Sandbox, client: Client) -> None:
    assert complete("exec", "sha") == {"shared"}
    assert complete("exec", "-e", "A=b", "sha") == {"shared"}
    assert complete("destroy", "--yes", "other", "sha") == {"shared"}
    assert complete("inspect", "shared", "sha") == set()
    assert complete("create", "--from", "sha") == {"shared"}
    assert complete("file", "ls", "sha") == {"shared"}


def test_without_a_daemon_there_are_no_names_and_no_words_about_it(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert "shared\n" in run(daemon, "complete-names", "sandboxes")[1]
    environment = {**daemon.environment, "HEARTH_URL": "unix:/nonexistent/socket"}
    done = subprocess.run(
        [sys.executable, "-m", "hearth.cli", "complete-names", "sandboxes"],
        env=environment,
        capture_output=True,
        timeout=WAIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_every_command_has_its_place() -> None:
    found = {place.path: place for place in places(COMMANDS, PASSED_ON)}
    assert set(COMMANDS) <= set(found)
    assert set(ALIASES.values()) <= set(found)
    assert all("--help" in place.options for place in found.values())
