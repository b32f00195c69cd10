"""Signed requests over the daemon's socket: good once, in time, for what was signed and nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.network import address_of, ask_over_tcp, bearer, signed

from hearth.sdk.client import Client

PATH = "/api/v1/volumes"
BODY = b'{"name": "signed", "size_mb": 16}'


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A key that signs, and where to send what it signed."""

    address: tuple[str, int]
    key_id: str
    secret: str

    def headers(self, method: str, target: str, body: bytes = b"", *, at: float | None = None) -> dict[str, str]:
        return signed(self.key_id, self.secret, method, target, body, at=at)

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str]:
        status, _, answer = ask_over_tcp(self.address, method, target, body, headers=headers)
        return status, "" if status < 400 else f"{answer['error']} {answer['details']}"


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """A daemon that lets an address be nobody as often as it likes: these tests are, over and over."""
    with data_directory() as data:
        publish_images(data)
        words = [f"--rate={name}=none" for name in ("failures", "read", "use", "create")]
        with running_daemon(data, "--listen", "127.0.0.1:0", *words) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


@pytest.fixture
def signer(client: Client, daemon: RunningDaemon) -> Iterator[Signer]:
    made = client.users.create_key(kind="hmac", name="signer")
    yield Signer(address=address_of(daemon), key_id=made.key.id, secret=made.secret)
    client.users.revoke_key(made.key.id)
    for volume in client.volumes():
        client.delete_volume(volume.id)


def test_a_signed_request_is_its_users(signer: Signer, client: Client) -> None:
    assert signer.ask("GET", f"{PATH}?limit=5", signer.headers("GET", f"{PATH}?limit=5"))[0] == 200
    assert signer.ask("POST", PATH, signer.headers("POST", PATH, BODY), BODY)[0] == 201
    assert [volume.name for volume in client.volumes()] == ["signed"]
    (key,) = [key for key in client.users.keys_of() if key.id == signer.key_id]
    assert key.last_used_at is not None
    assert signer.secret.startswith(key.prefix)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", PATH, None),
        ("POST", f"{PATH}?x=1", BODY),
        ("POST", "/api/v1/secrets", BODY),
        ("POST", PATH, BODY.replace(b"16", b"17")),
        ("POST", PATH, b""),
    ],
)
def test_a_signature_is_for_what_was_signed(signer: Signer, method: str, target: str, body: bytes | None) -> None:
    status, said = signer.ask(method, target, signer.headers("POST", PATH, BODY), body)
    assert status == 401
    assert "not valid" in said


def test_a_signature_is_good_once(signer: Signer) -> None:
    headers = signer.headers("GET", PATH)
    assert signer.ask("GET", PATH, headers)[0] == 200
    status, said = signer.ask("GET", PATH, headers)
    assert (status, "used before" in said) == (401, True)


def test_of_many_at_once_with_one_signature_one_gets_through(signer: Signer) -> None:
    headers = signer.headers("GET", PATH)
    with ThreadPoolExecutor(8) as threads:
        statuses = [each[0] for each in threads.map(lambda _: signer.ask("GET", PATH, headers), range(8))]
    assert sorted(statuses) == [200] + [401] * 7


@pytest.mark.parametrize("apart_s", [-900, 900])
def test_a_time_that_is_not_now_is_refused(signer: Signer, apart_s: float) -> None:
    headers = signer.headers("GET", PATH, at=time.time() + apart_s)
    status, said = signer.ask("GET", PATH, headers)
    assert (status, "X-Timestamp" in said) == (401, True)


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "99999999999999", "12 "])
def test_a_time_that_is_none_is_refused(signer: Signer, timestamp: str) -> None:
    headers = {**signer.headers("GET", PATH), "X-Timestamp": timestamp}
    assert signer.ask("GET", PATH, headers)[0] == 401


def test_an_unknown_key_and_a_wrong_signature_sound_the_same(signer: Signer) -> None:
    said = set()
    for key_id, secret in ((signer.key_id, f"hs_{'0' * 64}"), ("key-000000000000", signer.secret)):
        status, words = signer.ask("GET", PATH, signed(key_id, secret, "GET", PATH))
        assert status == 401
        said.add(words)
    assert len(said) == 1


@pytest.mark.parametrize(
    "value",
    ["HMAC", "HMAC x", "HMAC key-1:", "HMAC :00", "HMAC key-1:zz", "HMAC key-1:00:11", "Basic eDp5", "HMAC a:1"],
)
def test_a_malformed_header_is_nobody(signer: Signer, value: str) -> None:
    headers = {"Authorization": value, "X-Timestamp": str(int(time.time()))}
    assert signer.ask("GET", PATH, headers)[0] == 401


def test_a_signing_secret_is_no_token_and_a_token_signs_nothing(
    signer: Signer, client: Client, daemon: RunningDaemon
) -> None:
    assert signer.ask("GET", PATH, bearer(signer.secret))[0] == 401
    own = client.users.keys_of()[0]
    assert signer.ask("GET", PATH, signed(own.id, daemon.token, "GET", PATH))[0] == 401


def test_a_revoked_key_signs_nothing_any_more(client: Client, daemon: RunningDaemon) -> None:
    made = client.users.create_key(kind="hmac", scope="read")
    signer = Signer(address=address_of(daemon), key_id=made.key.id, secret=made.secret)
    assert signer.ask("GET", PATH, signer.headers("GET", PATH))[0] == 200
    assert signer.ask("POST", PATH, signer.headers("POST", PATH, BODY), BODY)[0] == 403
    client.users.revoke_key(made.key.id)
    assert signer.ask("GET", PATH, signer.headers("GET", PATH, at=time.time() - 2))[0] == 401


def test_a_signing_secret_survives_a_change_of_the_master_key_and_is_stored_sealed(
    signer: Signer, client: Client, daemon: RunningDaemon
) -> None:
    client.secrets.rotate_master_key()
    assert signer.ask("GET", PATH, signer.headers("GET", PATH))[0] == 200
    held = [path for path in daemon.data.root.glob("hearth.db*") if signer.secret.encode() in path.read_bytes()]
    assert held == []
