"""A daemon whose database goes away and comes back; two hosts on one; a backup, another directory, a daemon on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.postgresql import Server, running_server
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.test_app import ask

from hearth.errors import Conflict, NotFound
from hearth.sdk.client import Client

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.postgresql]

BACK_S = 60.0
PAUSE_S = 0.05


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, to be ended and started."""
    with running_server() as server:
        if server.cluster is None:
            pytest.skip("the server is somebody else's: it is not for us to end")
        yield server


def eventually(check: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + BACK_S
    while not check():
        assert time.monotonic() < deadline_s, "it did not come to be"
        time.sleep(PAUSE_S)


def test_a_daemon_outlives_its_database_and_goes_on_when_it_is_back(mortal: Server) -> None:
    assert mortal.cluster is not None
    with mortal.database() as url, data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--database", url) as daemon, daemon.client() as client:
            made = client.create(name="web")
            mortal.cluster.stop()
            status, _, answer = ask(daemon, "GET", "/api/v1/sandboxes", token=daemon.token)
            assert (status, answer["code"], answer["error"]) == (503, "unavailable", "the database does not answer")
            mortal.cluster.start()
            eventually(lambda: [each.name for each in client.list()] == ["web"])
            eventually(lambda: client.health().sandboxes == 1)
            assert made.run(["echo", "still here"]).stdout == "still here\n"
            assert daemon.process.poll() is None
            told = {entry["event"] for entry in daemon.log()}
            assert {"the database does not answer; trying again", "the database answers again"} <= told
            assert not {entry["event"] for entry in daemon.log()} & {"background work ended"}


def test_two_hosts_share_users_and_keys_and_keep_their_sandboxes_apart(postgresql: Server) -> None:
    with postgresql.database() as url, data_directory() as first, data_directory() as second:
        publish_images(first)
        publish_images(second)
        with running_daemon(first, "--database", url) as here, running_daemon(second, "--database", url) as there:
            with here.client() as client:
                client.create(name="web")
                key = client.users.create("ada").secret
            with Client(there.url, key) as client:
                assert client.list() == []
            with there.client() as client:
                assert [user.name for user in client.users.every()] == ["admin", "ada"]
                with pytest.raises(NotFound, match="on another host"):
                    client.get("web")
                with pytest.raises(Conflict, match="another host"):
                    client.create(name="web")
                client.create(name="db").destroy()
            assert there.stop() == 0
            with here.client() as client:
                assert [each.name for each in client.list()] == ["web"]
                assert client.get("web").run(["echo", "ok"]).stdout == "ok\n"


def test_a_copied_data_directory_is_refused_beside_its_original(postgresql: Server) -> None:
    with postgresql.database() as url, data_directory() as first, data_directory() as second:
        publish_images(first)
        publish_images(second)
        with running_daemon(first, "--database", url):
            (second.root / "host.id").write_bytes(first.host_id.read_bytes())
            refused = running_daemon(second, "--database", url)
            with pytest.raises(AssertionError, match="did not become ready"), refused:
                pass
            assert "another daemon speaks for this host" in (second.root / "log.jsonl").read_text()


def test_a_backup_of_a_running_daemon_becomes_another_daemon_that_tells_what_is_lost(
    postgresql: Server, tmp_path: Path
) -> None:
    with postgresql.database() as url, data_directory() as first, data_directory() as second:
        publish_images(first)
        publish_images(second)
        passphrase = tmp_path / "passphrase"
        passphrase.write_text("correct horse battery\n")
        passphrase.chmod(0o600)
        keys = ["--passphrase-file", str(passphrase)]
        file = str(tmp_path / "file")
        with running_daemon(first) as daemon, daemon.client() as client:
            client.create(name="web", env={"A": "1"})
            client.users.create("ada")
            client.secrets.put("TOKEN", "s3cret")
            succeeded(daemon, "backup", "create", file, *keys)
            assert "keys; made" in succeeded(daemon, "backup", "verify", file)
            token = daemon.token
            elsewhere = ["--data", str(second.root), "--database", url]
            assert b"holds keys" in run_cli(daemon.environment, "backup", "restore", file, *elsewhere).stderr
            succeeded(daemon, "backup", "restore", file, *elsewhere, *keys)
        assert b"s3cret" not in Path(file).read_bytes()
        with running_daemon(second, "--database", url) as daemon, daemon.client() as client:
            assert daemon.token == token
            assert [user.name for user in client.users.every()] == ["admin", "ada"]
            (web,) = client.list()
            assert (web.name, web.view.state) == ("web", "lost")
            assert "its disk was gone" in str(client.get("web").view.error)
            assert [secret.name for secret in client.secrets.every()] == ["TOKEN"]
            web.destroy()
            client.create(name="web", secrets=[{"name": "TOKEN"}])


def succeeded(daemon: RunningDaemon, *words: str) -> str:
    ran = run_cli(daemon.environment, *words)
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()
