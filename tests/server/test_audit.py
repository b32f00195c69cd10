"""The audit log over the daemon's real socket: each change is in it, once, by the time its answer is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from tests.server.daemon import RunningDaemon, run_cli
from tests.server.test_app import ask

from hearth.api.audit_schemas import AuditView
from hearth.errors import Forbidden, NotFound
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client

SOON_S = 60.0


class Ear:
    """Reads what came into the log since it was made."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.begun = datetime.now(UTC)

    def heard(self, **wanted: str) -> list[AuditView]:
        return list(self.client.users.audit(since=self.begun, **wanted))

    def waited(self, action: str) -> AuditView:
        """Wait for an entry that nobody's answer waits for."""
        deadline_s = time.monotonic() + SOON_S
        while not (found := self.heard(action=action)):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        return found[-1]


@pytest.fixture
def ear(client: Client) -> Ear:
    return Ear(client)


@pytest.fixture
def ada(client: Client, daemon: RunningDaemon) -> Iterator[Client]:
    with Client(daemon.url, client.users.create("ada").secret) as made:
        yield made
    client.users.delete("ada")


def test_a_change_is_told_with_all_that_matters(client: Client, daemon: RunningDaemon, ear: Ear) -> None:
    body = json.dumps({"name": "data", "size_mb": 16}).encode()
    status, _, made = ask(daemon, "POST", "/api/v1/volumes", body, token=daemon.token, X_Request_ID="look-here")
    (entry,) = ear.heard()
    assert (status, entry.status, entry.code, entry.action) == (201, 201, None, "create_volume")
    assert (entry.user, entry.user_id, entry.remote) == ("admin", client.users.get().id, "unix")
    assert (entry.object, entry.request_id) == (made["id"], "look-here")
    assert entry.key in {key.id for key in client.users.keys_of()}
    client.volume("data")
    client.volumes()
    client.delete_volume("data")
    assert [(each.action, each.object) for each in ear.heard()] == [
        ("create_volume", made["id"]),
        ("delete_volume", "data"),
    ]


def test_attempts_are_told_and_what_was_asked_is_not(client: Client, daemon: RunningDaemon, ear: Ear) -> None:
    for method, path, body in (
        ("DELETE", "/api/v1/volumes/no-such", None),
        ("POST", "/api/v1/volumes", b"{"),
        ("POST", "/api/v1/secrets", b'{"name": "T", "value": ["canary"]}'),
        ("DELETE", "/api/v1/volumes/%00%1b%5bx", None),
    ):
        ask(daemon, method, path, body, token=daemon.token)
    told = [(entry.action, entry.object, entry.status, entry.code) for entry in ear.heard()]
    assert told == [
        ("delete_volume", "no-such", 404, "not_found"),
        ("create_volume", None, 400, "invalid"),
        ("put_secret", None, 400, "invalid"),
        ("delete_volume", "??[x", 404, "not_found"),
    ]
    ask(daemon, "DELETE", "/api/v1/volumes/no-such", token=f"hk_{'0' * 64}")
    assert len(ear.heard()) == 4


def test_what_a_key_may_not_is_told(client: Client, daemon: RunningDaemon, ear: Ear) -> None:
    made = client.users.create_key(scope="read")
    with Client(daemon.url, made.secret) as narrow, pytest.raises(Forbidden):
        narrow.destroy("no-such")
    client.users.revoke_key(made.key.id)
    entries = ear.heard()
    assert [(entry.action, entry.status) for entry in entries] == [
        ("create_key", 201),
        ("destroy_sandbox", 403),
        ("revoke_key", 204),
    ]
    assert entries[0].object == f"me {made.key.id}"
    assert entries[1].key == made.key.id
    assert entries[2].object == f"me/{made.key.id}"
    assert made.secret not in str(entries)


def test_commands_are_noted_without_their_words(client: Client, shared: str, ear: Ear) -> None:
    client.run("shared", ["echo", "canary"])
    with client.stream("shared", ["echo", "canary"]) as running:
        list(running)
    entry = ear.waited("exec")
    assert (entry.object, entry.status) == ("shared", 200)
    assert "canary" not in str(ear.heard())


def test_a_user_sees_own_changes_alone(client: Client, ada: Client, ear: Ear) -> None:
    ada.create_volume("hers", 16)
    ada.delete_volume("hers")
    client.create_volume("mine", 16)
    client.delete_volume("mine")
    hers = ada.users.audit(since=ear.begun)
    assert {entry.user for entry in hers} == {"ada"}
    assert len(hers) == 2
    assert {entry.user for entry in ear.heard()} == {"admin", "ada"}
    assert {entry.user for entry in ear.heard(user="ada")} == {"ada"}
    assert ada.users.audit(since=ear.begun, user="me") == hers
    with pytest.raises(NotFound):
        ada.users.audit(user="admin")


def test_nothing_changes_the_log(daemon: RunningDaemon) -> None:
    for method in ("POST", "PATCH", "DELETE"):
        status, _, problem = ask(daemon, method, "/api/v1/audit", token=daemon.token)
        assert (status, problem["code"]) == (405, "method_not_allowed")


def test_the_command_line_shows_it(daemon: RunningDaemon, client: Client) -> None:
    client.create_volume("data", 16)
    client.delete_volume("data")
    shown = run_cli(daemon.environment, "audit", "--since", "1h", "--action", "create_volume")
    assert shown.returncode == 0
    assert b"create_volume" in shown.stdout
    assert b"delete_volume" not in shown.stdout
    entries = json.loads(run_cli(daemon.environment, "audit", "--json", "--user", "admin").stdout)
    assert {"create_volume", "delete_volume"} <= {entry["action"] for entry in entries}


async def test_the_asynchronous_client_reads_it_too(daemon: RunningDaemon) -> None:
    begun = datetime.now(UTC)
    async with AsyncClient(daemon.url, daemon.token) as client:
        await client.create_volume("data", 16)
        await client.delete_volume("data")
        assert len(await client.users.audit(since=begun)) == 2
