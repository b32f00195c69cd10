"""Users and keys over the daemon's real socket: who may what, for how long, and what is shown."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.test_app import ask

from hearth.errors import Conflict, Forbidden, HearthError, InvalidInput, NotFound, Unauthenticated
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client

SOON_S = 30.0


@pytest.fixture(autouse=True)
def clean(client: Client) -> Iterator[None]:
    """No user and no further key is left to the next test."""
    yield
    for user in client.users.every():
        if user.name != "admin":
            client.users.delete(user.id)
    for key in client.users.keys_of()[1:]:
        if key.valid:
            client.users.revoke_key(key.id)


@pytest.fixture
def ada(client: Client, daemon: RunningDaemon) -> Iterator[Client]:
    """The client of a plain user."""
    with Client(daemon.url, client.users.create("ada").secret) as made:
        yield made


def test_a_user_is_made_shown_renamed_and_deleted(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create("ada")
    assert (made.user.name, made.user.admin, made.key.scope, made.key.valid) == ("ada", False, "full", True)
    assert made.secret.startswith(made.key.prefix)
    assert client.users.get("ada") == client.users.get(made.user.id) == made.user
    with Client(daemon.url, made.secret) as her:
        assert her.users.get() == made.user
        assert her.list() == []
        assert client.users.change("ada", name="eve").name == "eve"
        assert her.users.get().name == "eve"
        client.users.delete("eve")
        with pytest.raises(Unauthenticated):
            her.users.get()
    assert [user.name for user in client.users.every()] == ["admin"]


@pytest.mark.parametrize("name", ["me", "", "Ada", "-x"])
def test_a_name_that_cannot_be_is_refused(client: Client, name: str) -> None:
    with pytest.raises(InvalidInput):
        client.users.create(name)
    with pytest.raises(Conflict):
        client.users.create("admin")


def test_a_plain_user_changes_and_sees_no_other(client: Client, ada: Client) -> None:
    for forbidden in (
        lambda: ada.users.create("eve"),
        lambda: ada.users.every(),
        lambda: ada.users.change("me", admin=True),
        lambda: ada.users.delete("me"),
    ):
        with pytest.raises(Forbidden):
            forbidden()
    for hidden in ("admin", client.users.get().id, "nobody"):
        for deed in (
            lambda: ada.users.get(hidden),  # noqa: B023
            lambda: ada.users.change(hidden, admin=True),  # noqa: B023
            lambda: ada.users.delete(hidden),  # noqa: B023
            lambda: ada.users.keys_of(hidden),  # noqa: B023
            lambda: ada.users.create_key(hidden),  # noqa: B023
            lambda: ada.users.rotate_key(hidden),  # noqa: B023
            lambda: ada.users.revoke_key(client.users.keys_of()[0].id, hidden),  # noqa: B023
        ):
            with pytest.raises(NotFound):
                deed()
    with pytest.raises(NotFound):
        ada.users.revoke_key(client.users.keys_of()[0].id)
    assert client.users.get("ada").admin is False


def test_the_last_administrator_stays(client: Client) -> None:
    with pytest.raises(Conflict):
        client.users.delete("me")
    with pytest.raises(Conflict):
        client.users.change("admin", admin=False)


SCOPED = [
    ("read", lambda client: client.list(), True),
    ("read", lambda client: client.run("shared", ["true"]), False),
    ("read", lambda client: client.start("shared"), False),
    ("exec", lambda client: client.run("shared", ["true"]), True),
    ("exec", lambda client: client.start("shared"), True),
    ("exec", lambda client: client.update("shared", keep_hot=False), False),
    ("exec", lambda client: client.create_volume("data", 16), False),
    ("write", lambda client: client.update("shared", keep_hot=False), True),
    ("write", lambda client: client.users.create_key(), False),
    ("write", lambda client: client.users.keys_of(), False),
    ("write", lambda client: client.users.create("eve"), False),
]


@pytest.mark.parametrize(("scope", "deed", "allowed"), SCOPED)
def test_a_key_may_what_its_scope_says(
    client: Client, daemon: RunningDaemon, shared: str, scope: str, deed: object, allowed: bool
) -> None:
    made = client.users.create_key(scope=scope)  # type: ignore[arg-type]
    with Client(daemon.url, made.secret) as narrow:
        if allowed:
            deed(narrow)  # type: ignore[operator]
        else:
            with pytest.raises(Forbidden, match=scope):
                deed(narrow)  # type: ignore[operator]


def test_a_key_for_one_sandbox_opens_no_other(client: Client, daemon: RunningDaemon, shared: str) -> None:
    made = client.users.create_key(sandbox="shared", scope="exec")
    assert made.key.sandbox == shared
    with client.create(name="other") as other, Client(daemon.url, made.secret) as narrow:
        assert narrow.run("shared", ["true"]).exit_code == 0
        assert narrow.get(shared).name == "shared"
        for reference in ("other", other.id, "no-such"):
            with pytest.raises(NotFound):
                narrow.get(reference)
        for deed in (narrow.list, narrow.volumes, narrow.images.list, narrow.users.get):
            with pytest.raises(Forbidden):
                deed()
        # A name that passes to another sandbox takes the key nowhere.
        client.update("shared", name="aside")
        client.update("other", name="shared")
        with pytest.raises(NotFound):
            narrow.get("shared")
        client.update(other.id, name="other")
        client.update(shared, name="shared")
    for scope in ("write", "full"):
        with pytest.raises(InvalidInput):
            client.users.create_key(sandbox="shared", scope=scope)
    with pytest.raises(NotFound):
        client.users.create_key(sandbox="no-such", scope="read")


def test_a_revoked_key_ends_at_once(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key()
    with Client(daemon.url, made.secret) as other:
        other.list()
        client.users.revoke_key(made.key.id)
        with pytest.raises(Unauthenticated):
            other.list()
    with pytest.raises(NotFound):
        client.users.revoke_key(made.key.id)


def test_a_key_ends_by_itself(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key(ttl_s=1)
    deadline_s = time.monotonic() + SOON_S
    with Client(daemon.url, made.secret) as other:
        while True:
            assert time.monotonic() < deadline_s
            try:
                other.list()
            except Unauthenticated:
                break
            time.sleep(0.05)
    assert [key.valid for key in client.users.keys_of() if key.id == made.key.id] == [False]


def test_a_key_is_replaced_with_and_without_an_overlap(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key(name="ci", scope="full", ttl_s=1000)
    with Client(daemon.url, made.secret) as old:
        second = old.users.rotate_key(overlap_s=600)
        assert (second.key.name, second.key.scope) == ("ci", "full")
        assert second.key.expires_at is not None
        old.list()
        with Client(daemon.url, second.secret) as new:
            third = new.users.rotate_key()
            with pytest.raises(Unauthenticated):
                new.list()
        with Client(daemon.url, third.secret) as newest:
            newest.list()
        old.list()


def test_a_key_is_replaced_and_ended_by_its_name(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key(name="by-name", scope="read")
    newer = client.users.rotate_key(key="by-name", overlap_s=600)
    with pytest.raises(Conflict) as unclear:
        client.users.revoke_key("by-name")
    assert made.key.id in unclear.value.details and newer.key.id in unclear.value.details
    client.users.revoke_key(made.key.id)
    client.users.revoke_key("by-name")
    ended = [key.valid for key in client.users.keys_of() if key.id in (made.key.id, newer.key.id)]
    assert ended == [False, False]
    for gone in ("by-name", made.key.id, "no-such-key"):
        with pytest.raises(NotFound):
            client.users.revoke_key(gone)


def test_the_key_of_the_hosts_own_command_line_is_replaced_in_its_file() -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon:
            before = daemon.token
            with daemon.client() as client:
                issued = client.users.rotate_key()
            assert daemon.token == issued.secret != before
            assert data.admin_key.stat().st_mode & 0o777 == 0o600
            with daemon.client() as client:
                other = client.users.create_key(name="another")
                client.users.rotate_key(key="another")
                assert daemon.token == issued.secret != other.secret
                client.list()


def test_a_secret_is_shown_once_and_stored_nowhere(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key(name="once")
    with Client(daemon.url, made.secret) as other:
        other.list()
    (shown,) = [key for key in client.users.keys_of() if key.id == made.key.id]
    assert shown.last_used_at is not None
    assert made.secret not in str(client.users.keys_of())
    held = []
    for path in daemon.data.root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a file that is written anew beside the old one has another name
            if path.is_file() and made.secret.encode() in path.read_bytes():
                held.append(path.name)
    assert held == []


def test_every_way_of_being_nobody_sounds_the_same(client: Client, daemon: RunningDaemon) -> None:
    revoked = client.users.create_key()
    client.users.revoke_key(revoked.key.id)
    said = set()
    for token in (revoked.secret, f"hk_{'0' * 64}"):
        status, headers, problem = ask(daemon, "GET", "/api/v1/sandboxes", token=token)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        said.add((problem["error"], problem["details"], problem["resolution"]))
    assert len(said) == 1


async def test_the_asynchronous_client_does_the_same(daemon: RunningDaemon) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        made = await client.users.create("eve")
        assert [user.name for user in await client.users.every()] == ["admin", "eve"]
        key = await client.users.create_key("eve", scope="read")
        assert [each.scope for each in await client.users.keys_of("eve")] == ["full", "read"]
        async with AsyncClient(daemon.url, key.secret) as narrow:
            assert (await narrow.users.get()).id == made.user.id
        await client.users.revoke_key(key.key.id, "eve")
        assert (await client.users.rotate_key("eve")).key.valid
        assert (await client.users.change("eve", admin=True)).admin
        await client.users.delete("eve")
        with pytest.raises(HearthError):
            await client.users.get("eve")
