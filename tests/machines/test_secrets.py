"""Secrets in real machines: as files in their memory, right after every way in which a machine comes up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hearth.sdk.client import Client, Sandbox

TOLD = "cat /run/secrets/KEY; printf ' %s' \"$TOKEN\""
FACTS = "stat -c '%a %u' /run/secrets/KEY; stat -f -c %T /run/secrets; ls /run/secrets"


@pytest.fixture
def cleaned(client: Client) -> Iterator[Client]:
    """What the test makes beside the shared machine goes, whatever happens."""
    yield client
    for sandbox in client.list():
        if sandbox.name.startswith("secret"):
            sandbox.destroy()
    for snapshot in client.snapshots():
        client.delete_snapshot(snapshot.id)
    for secret in client.secrets.every():
        client.secrets.delete(secret.name)


def told(sandbox: Sandbox) -> str:
    return sandbox.run(["sh", "-c", TOLD]).check().stdout


def test_secrets_are_right_after_creation_fork_restore_and_wake(cleaned: Client, shared: str) -> None:
    client = cleaned
    client.secrets.put("KEY", "key-1")
    client.secrets.put("TOKEN", "token-1")
    sandbox = client.create(name="secret", secrets=[{"name": "TOKEN"}, {"name": "KEY", "file": True}])
    assert told(sandbox) == "key-1 token-1"
    assert sandbox.run(["sh", "-c", FACTS]).check().stdout.split() == ["400", "1000", "tmpfs", "KEY"]
    sandbox.checkpoint("before")

    client.secrets.put("KEY", "key-2")
    client.secrets.put("TOKEN", "token-2")
    assert told(sandbox) == "key-1 token-1"
    (copy,) = sandbox.fork(name="secret-copy")
    (restored,) = client.resume_snapshot("before", name="secret-restored")
    sandbox.stop()
    assert [told(each) for each in (copy, restored, sandbox)] == ["key-2 token-2"] * 3

    client.secrets.delete("TOKEN")
    sandbox.stop()
    assert told(sandbox).split() == ["key-2"]
    assert client.run("shared", ["ls", "/run/secrets"]).exit_code != 0
