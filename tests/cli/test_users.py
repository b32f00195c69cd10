"""`hearth user` and `hearth key` as a user types them."""

from __future__ import annotations

import json

from tests.cli.test_sleep import run
from tests.server.daemon import RunningDaemon, run_cli

from hearth.sdk.client import Client


def test_users_and_keys_are_made_listed_and_ended(daemon: RunningDaemon, client: Client) -> None:
    status, secret, _ = run(daemon, "user", "create", "ada")
    assert (status, len(secret.strip())) == (0, 67)
    assert [line.split()[0] for line in run(daemon, "users")[1].splitlines()] == ["NAME", "admin", "ada"]
    hers = {**daemon.environment, "HEARTH_TOKEN": secret.strip()}
    made = run_cli(hers, "key", "create", "ci", "--scope", "read", "--expires", "1h", "--json")
    key = json.loads(made.stdout)
    assert (made.returncode, key["key"]["scope"], key["key"]["name"]) == (0, "read", "ci")
    assert b"ci" in run_cli(hers, "key").stdout
    rotated = run_cli(hers, "key", "rotate", "--overlap", "5m")
    assert (rotated.returncode, rotated.stdout[:3]) == (0, b"hk_")
    assert run_cli(hers, "key", "revoke", "ci").stdout.decode().strip() == "ci"
    assert b"revoked" in run_cli(hers, "key", "list").stdout
    refused = run_cli(hers, "user", "create", "eve")
    assert (refused.returncode, b"administrators" in refused.stderr) == (1, True)
    assert "user" in run(daemon, "user", "edit", "ada", "--no-admin")[1]
    assert json.loads(run(daemon, "user", "inspect", "ada", "--json")[1])["admin"] is False
    status, _, err = run(daemon, "user", "delete", "ada")
    assert (status, "--yes" in err) == (1, True)
    assert run(daemon, "user", "delete", "--yes", "ada") == (0, "ada\n", "")


def test_quotas_are_shown_and_set(daemon: RunningDaemon, client: Client) -> None:
    client.users.create("ada")
    assert ["volumes", "0", "32"] in [line.split() for line in run(daemon, "quota", "show", "ada")[1].splitlines()]
    status, table, _ = run(daemon, "quota", "set", "ada", "sandboxes=5", "volumes=none", "cpus=default")
    lines = [line.split() for line in table.splitlines()]
    assert (status, ["sandboxes", "0", "5"] in lines, ["volumes", "0", "none"] in lines) == (0, True, True)
    status, _, err = run(daemon, "quota", "set", "ada", "sandboxes=many")
    assert (status, "sandboxes" in err) == (1, True)
    status, _, err = run(daemon, "quota", "set", "ada", "beer=1")
    assert (status, "beer" in err) == (1, True)
    assert json.loads(run(daemon, "quota", "--json")[1])["user"] == "admin"
    client.users.delete("ada")
