"""Idempotency-Key, and creations that race: however often somebody asks, one machine comes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.test_app import Answer, ask

from hearth.errors import NotFound
from hearth.sdk.client import Client

SANDBOXES = "/api/v1/sandboxes"
SOON_S = 60.0


@pytest.fixture(autouse=True)
def clean(client: Client, shared: str) -> Iterator[None]:
    """No sandbox and no user is left to the next test but the shared one."""
    yield
    for sandbox in client.list():
        if sandbox.id != shared:
            sandbox.destroy()
    for user in client.users.every():
        if user.name != "admin":
            client.users.delete(user.id)


def create(daemon: RunningDaemon, key: str | None, token: str | None = None, **body: object) -> Answer:
    headers = {} if key is None else {"Idempotency_Key": key}
    return ask(daemon, "POST", SANDBOXES, json.dumps(body).encode(), token=token or daemon.token, **headers)


def together(count: int, daemon: RunningDaemon, key: str | None, **body: object) -> Sequence[Answer]:
    """Send the same request from several threads at one moment."""
    ready = threading.Barrier(count)

    def one(_: int) -> Answer:
        ready.wait(SOON_S)
        return create(daemon, key, None, **body)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


def names(client: Client, prefix: str = "") -> list[str]:
    return sorted(sandbox.name for sandbox in client.list() if sandbox.name.startswith(prefix))


def test_a_repetition_is_answered_as_the_first_was_and_makes_nothing(daemon: RunningDaemon, client: Client) -> None:
    before = len(client.list())
    status, headers, first = create(daemon, "again", labels={"a": "1"})
    assert (status, headers.get("idempotent-replayed")) == (201, None)

    status, headers, second = create(daemon, "again", labels={"a": "1"})

    assert (status, headers["idempotent-replayed"], second) == (201, "true", first)
    assert len(client.list()) == before + 1


def test_a_key_stands_for_one_request(daemon: RunningDaemon, client: Client) -> None:
    create(daemon, "one-request", name="idem-a")
    status, _, problem = create(daemon, "one-request", name="idem-b")
    assert (status, problem["code"]) == (409, "conflict")
    assert "Idempotency-Key" not in problem["error"]
    assert names(client, "idem-") == ["idem-a"]


@pytest.mark.parametrize("key", ["", "x" * 256, "two words", "é"])
def test_what_is_no_key_is_refused(daemon: RunningDaemon, key: str) -> None:
    status, _, problem = create(daemon, key.encode().decode("latin-1"))
    assert (status, problem["code"], problem["error"]) == (400, "invalid", "invalid Idempotency-Key")


def test_of_many_at_once_with_one_key_one_makes_a_machine(daemon: RunningDaemon, client: Client) -> None:
    before = len(client.list())
    answers = together(12, daemon, "at-once")
    assert {status for status, _, _ in answers} == {201}
    assert len({body["id"] for _, _, body in answers}) == 1
    assert sum("idempotent-replayed" not in headers for _, headers, _ in answers) == 1
    assert len(client.list()) == before + 1


def test_of_many_at_once_with_one_name_one_makes_a_machine(daemon: RunningDaemon, client: Client) -> None:
    answers = together(12, daemon, None, name="idem-race")
    assert sorted(status for status, _, _ in answers) == [200] * 11 + [201]
    assert len({body["id"] for _, _, body in answers}) == 1
    assert all(body["state"] == "running" for _, _, body in answers)
    assert names(client, "idem-") == ["idem-race"]


def test_what_failed_may_be_tried_again_with_the_same_key(daemon: RunningDaemon, client: Client) -> None:
    status, _, _ = ask(
        daemon, "POST", "/api/v1/volumes", b'{"name":"idem","size_mb":0}', token=daemon.token, Idempotency_Key="v"
    )
    assert status == 400
    status, _, problem = create(daemon, "later", **{"from": "idem-unknown"})
    assert (status, problem["code"]) == (404, "not_found")
    status, headers, _ = create(daemon, "later", **{"from": "idem-unknown"})
    assert (status, headers.get("idempotent-replayed")) == (404, None)
    assert create(daemon, "later", name="idem-now")[0] == 201


def test_keys_are_each_users_own(daemon: RunningDaemon, client: Client) -> None:
    token = client.users.create("idem-eve").secret
    ours, theirs = create(daemon, "shared-key"), create(daemon, "shared-key", token)
    assert (ours[0], theirs[0]) == (201, 201)
    assert ours[2]["id"] != theirs[2]["id"]
    with Client(daemon.url, token) as her:
        her.destroy(theirs[2]["id"])


def test_a_secret_that_is_shown_once_is_shown_to_a_repetition_and_nowhere_in_the_database(
    daemon: RunningDaemon, client: Client
) -> None:
    if not daemon.data.database.exists():
        pytest.skip("this database is no file whose bytes could be looked at")
    key = "a-key-nobody-else-knows"
    answers = [
        ask(daemon, "POST", "/api/v1/users", b'{"name":"idem-ada"}', token=daemon.token, Idempotency_Key=key)
        for _ in range(2)
    ]
    assert answers[0][2] == answers[1][2]
    files = [path.read_bytes() for path in daemon.data.root.glob("hearth.db*")]
    assert files
    assert not any(answers[0][2]["secret"].encode() in content or key.encode() in content for content in files)
    assert client.users.get("idem-ada").id == answers[0][2]["user"]["id"]


def test_a_destroy_during_a_creation_is_carried_out(daemon: RunningDaemon, client: Client) -> None:
    for number in range(6):
        name = f"idem-doomed-{number}"
        with ThreadPoolExecutor(1) as threads:
            creating = threads.submit(create, daemon, None, None, name=name)
            deadline = time.monotonic() + SOON_S
            while True:
                status, _, problem = ask(daemon, "DELETE", f"{SANDBOXES}/{name}", token=daemon.token)
                if status != 404:
                    break
                assert time.monotonic() < deadline, problem
            assert status == 204, problem
            assert creating.result(SOON_S)[0] in (201, 409)
        with pytest.raises(NotFound):
            client.get(name)
    known = {sandbox.id for sandbox in client.list()}
    assert {entry.name for entry in daemon.data.machines.iterdir()} <= known


def test_answers_outlive_the_daemon_and_its_death_in_the_middle_makes_no_second_machine() -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon:
            _, _, first = create(daemon, "before")
            begun = threading.Thread(target=lambda: _ignoring_ends(daemon, "middle"))
            begun.start()
            daemon.process.kill()
            daemon.process.wait(SOON_S)
            begun.join(SOON_S)
        with running_daemon(data) as daemon, daemon.client() as client:
            status, headers, again = create(daemon, "before")
            assert (status, headers["idempotent-replayed"], again["id"]) == (201, "true", first["id"])
            assert create(daemon, "middle")[0] in (200, 201)
            assert create(daemon, "middle")[1]["idempotent-replayed"] == "true"
            assert len(client.list()) == 2


def _ignoring_ends(daemon: RunningDaemon, key: str) -> None:
    try:
        create(daemon, key)
    except OSError:
        return
    except Exception as error:  # noqa: BLE001  the daemon is killed under it, at any point of the answer
        print(f"the daemon's death was met: {error!r}")
