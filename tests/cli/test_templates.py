"""`hearth template` and what `hearth create` takes of it, as processes of their own, with real agents on this host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.cli.settings import read_files
from hearth.errors import InvalidInput


@pytest.fixture(autouse=True)
def clean(daemon: RunningDaemon) -> Iterator[None]:
    yield
    with daemon.client() as client:
        for template in client.templates.every():
            client.templates.delete(template.id)


def hearth(daemon: RunningDaemon, *words: str, status: int = 0) -> str:
    done = run_cli(daemon.environment, *words)
    assert done.returncode == status, done.stderr.decode()
    return (done.stdout if status == 0 else done.stderr).decode()


def as_json(daemon: RunningDaemon, *words: str) -> Any:
    return json.loads(hearth(daemon, *words, "--json"))


def test_a_template_is_kept_listed_shown_edited_and_deleted(daemon: RunningDaemon, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    options = ("-m", "128", "-e", "TOKEN=hidden", "-l", "team=search", "--ttl", "2h", "--no-keep-hot")
    outfit = ("--file", f"{script}:/opt/run:0755", "--init", "true", "--init-timeout", "2m")
    assert hearth(daemon, "template", "create", "web", *options, *outfit) == "web\n"
    shown = hearth(daemon, "template", "show", "web")
    for words in ("128 MiB", "TOKEN", "team=search", "7200 s", "/opt/run, 10 bytes, mode 0755", "120 s"):
        assert words in shown
    assert "hidden" not in shown
    assert "web" in hearth(daemon, "templates")
    assert hearth(daemon, "template", "edit", "web", "--name", "site", "-m", "256") == "site\n"
    (listed,) = as_json(daemon, "template", "list")
    assert (listed["name"], listed["memory_mb"], listed["ttl_s"], listed["keep_hot"]) == ("site", 256, 7200, False)
    assert "--yes" in hearth(daemon, "template", "delete", "site", status=1)
    assert hearth(daemon, "template", "delete", "site", "--yes") == "site\n"
    assert as_json(daemon, "templates") == []
    assert "no such template" in hearth(daemon, "template", "show", "site", status=1)


def test_a_sandbox_is_made_of_a_template_and_of_what_is_said(daemon: RunningDaemon, tmp_path: Path) -> None:
    script, note = tmp_path / "run.sh", tmp_path / "note"
    script.write_text(f"#!/bin/sh\necho $STAGE $1 >> {note}\n")
    script.chmod(0o700)
    hearth(daemon, "template", "create", "web", "-m", "128", "-e", "STAGE=test", "--init", f"echo $STAGE > {note}")
    given = ("--file", f"{script}:{tmp_path}/placed", "--init", f"{tmp_path}/placed mine")
    made = as_json(daemon, "create", "one", "--template", "web", "-e", "STAGE=live", *given)
    try:
        assert note.read_text() == "live mine\n"
        assert (tmp_path / "placed").stat().st_mode & 0o777 == 0o700
        assert (made["memory_mb"], made["template_id"]) == (128, as_json(daemon, "template", "show", "web")["id"])
    finally:
        hearth(daemon, "destroy", "one", "--yes")
    assert "no such template" in hearth(daemon, "create", "two", "--template", "nosuch", status=1)


def test_a_command_that_fails_is_told_with_its_output(daemon: RunningDaemon) -> None:
    told = hearth(daemon, "create", "failing", "--init", "echo what went wrong; exit 9", status=1)
    assert "exited with 9" in told
    assert "what went wrong" in told


@pytest.mark.parametrize("text", ["", "x", "x:y", ":/etc/x", "/no/such/file:/etc/x", "x:/etc/x:0999"])
def test_a_file_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_files([text])
    assert refused.value.field == "--file"


def test_a_files_own_mode_counts_where_none_is_given(tmp_path: Path) -> None:
    (tmp_path / "a:b").write_bytes(b"\xff")
    (tmp_path / "a:b").chmod(0o640)
    assert read_files([f"{tmp_path}/a:b:/etc/x"]) == {"/etc/x": (b"\xff", "0640")}
    assert read_files([f"{tmp_path}/a:b:/etc/x:755"]) == {"/etc/x": (b"\xff", "755")}
