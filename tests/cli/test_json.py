"""`--json`: what is printed is JSON whatever comes of a command, its errors too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.test_sleep import run
from tests.server.daemon import RunningDaemon, data_directory, run_cli

from hearth.sdk.client import Client, Sandbox

FIELDS = {"error", "code", "details", "resolution"}


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ("inspect nobody --json", 1, "not_found"),
        ("exec --json nobody -- true", 125, "not_found"),
        ("exec --json shared -- no-such-program", 127, "start_failed"),
        ("exec --json shared", 125, "invalid"),
        ("logs --json ex-000000000000", 125, "not_found"),
        ("destroy shared --json", 1, "invalid"),
        ("list --json --no-such-option", 2, "invalid"),
        ("no-such-command --json", 2, "invalid"),
        ("stop --json", 2, "invalid"),
        ("create --json --memory-mb 1", 1, "invalid"),
        ("config check --json /no/such/file", 1, "host_unfit"),
        ("backup verify --json /no/such/file", 1, "invalid"),
    ],
)
def test_an_error_is_one_object_in_a_line_of_stderr(
    daemon: RunningDaemon, sandbox: Sandbox, words: str, status: int, code: str
) -> None:
    ended, out, err = run(daemon, *words.split())
    (line,) = err.splitlines()
    told = json.loads(line)
    assert (ended, out, told["code"]) == (status, "", code)
    assert set(told) - {"request_id"} == FIELDS
    assert told["error"] and told["resolution"]


def test_a_failed_request_is_told_by_its_id(daemon: RunningDaemon) -> None:
    told = json.loads(run(daemon, "inspect", "--json", "nobody")[2])
    assert daemon.entries(told["request_id"])


def test_without_a_daemon_it_is_json_too(tmp_path: Path) -> None:
    ended = run_cli({"HEARTH_DATA": str(tmp_path), "PATH": ""}, "list", "--json")
    assert (ended.returncode, ended.stdout, json.loads(ended.stderr)["code"]) == (1, b"", "unavailable")


def test_what_stands_behind_a_command_is_the_commands_own(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    assert run(daemon, "exec", "shared", "--", "echo", "--json") == (0, "--json\n", "")
    _, _, err = run(daemon, "exec", "nobody", "true", "--json")
    assert err.startswith("hearth: no such sandbox\n")


def test_each_of_several_is_told_with_its_error(daemon: RunningDaemon, client: Client) -> None:
    client.create(name="one")
    status, out, err = run(daemon, "destroy", "--yes", "--json", "one", "nobody")
    done, failed = json.loads(out)
    assert (status, done, failed["done"]) == (1, {"name": "one", "done": True}, False)
    assert failed | json.loads(err) == failed


def test_a_name_that_is_no_text_is_refused_and_shown(daemon: RunningDaemon) -> None:
    status, out, err = run(daemon, "destroy", "--yes", "--json", "caf\udce9")
    assert (status, json.loads(out)[0]["name"], json.loads(err)["code"]) == (1, "caf\\udce9", "invalid")
    for words in (
        ("inspect", "\udce9"),
        ("snapshots", "create", "\udce9", "x"),
        ("create", "-e", "A=\udce9"),
        ("sessions", "end", "x", "\udce9", "-y"),
    ):
        status, _, err = run(daemon, *words)
        assert (status, "Traceback" in err) == (1, False), err


def test_what_prints_nothing_for_people_is_a_document_for_programs(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="published"):
        client.ports.publish("published", 80)
        words = ("publish", "published", "-p", "80", "--remove")
        assert json.loads(run(daemon, *words, "--json")[1]) == [{"name": "80", "done": True}]


def test_a_backup_and_a_check_are_told_as_json(daemon: RunningDaemon, tmp_path: Path) -> None:
    file = tmp_path / "hearth.toml"
    file.write_text("pool = 2\n")
    file.chmod(0o600)
    status, out, _ = run(daemon, "config", "check", "--json", str(file))
    assert (status, json.loads(out)) == (0, {"file": str(file), "settings": 1})
    backup = str(tmp_path / "one.backup")
    status, out, err = run(daemon, "backup", "create", "--json", backup)
    manifest = json.loads(out)
    assert (status, manifest["tables"]["users"], err) == (0, 1, "")
    assert json.loads(run(daemon, "backup", "verify", "--json", backup)[1]) == manifest
    with data_directory() as target:
        status, out, _ = run(daemon, "backup", "restore", "--json", backup, "--data", str(target.root))
    assert (status, json.loads(out)["tables"], json.loads(out)["replaced"]) == (0, manifest["tables"], None)


@pytest.mark.parametrize(
    ("word", "said"), [("creat", "did you mean 'hearth create'?"), ("vol", "'hearth --help' lists them")]
)
def test_a_wrong_command_leads_to_the_right_one(daemon: RunningDaemon, word: str, said: str) -> None:
    assert run(daemon, word)[2].splitlines()[1].strip() == said
