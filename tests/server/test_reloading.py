"""SIGHUP: what changes without a restart, what waits for one, and that a wrong file changes nothing."""

from __future__ import annotations

import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, data_directory, running_daemon
from tests.server.network import address_of
from tests.server.test_secure import Authority

pytestmark = [
    pytest.mark.daemon,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates"),
]
WAIT_S = 60.0
TOLD = ("reloaded", "not reloaded")


@dataclass(frozen=True, kw_only=True)
class Configured:
    """A daemon with a file, behind TLS."""

    daemon: RunningDaemon
    file: Path
    authority: Authority

    def reload(self, text: str) -> dict[str, object]:
        """Write the file, reload, give what the daemon logged of it."""
        self.file.write_text(text)
        before = len(self._told())
        self.daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT_S
        while len(self._told()) == before:
            assert time.monotonic() < deadline, "the daemon does not say that it reloaded"
            time.sleep(0.01)
        return self._told()[-1]

    def _told(self) -> list[dict[str, object]]:
        return [entry for entry in self.daemon.log() if entry["event"] in TOLD]

    def serial(self) -> object:
        """Give the serial number of the certificate that is shown now."""
        host, port = address_of(self.daemon)
        context = ssl.create_default_context(cafile=self.authority.certificate)
        with (
            socket.create_connection((host, port), timeout=WAIT_S) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as shown,
        ):
            certificate = shown.getpeercert()
        assert certificate
        return certificate["serialNumber"]


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    root = tmp_path_factory.mktemp("reload")
    authority = Authority(root=root)
    authority.begin()
    certificate, key = authority.sign("server", "hearth", "IP:127.0.0.1")
    file = root / "hearth.toml"
    file.write_text("")
    words = ("--listen", "127.0.0.1:0", "--tls-cert", str(certificate), "--tls-key", str(key), "--config", str(file))
    with data_directory() as data, running_daemon(data, *words) as daemon:
        yield Configured(daemon=daemon, file=file, authority=authority)


def test_levels_quotas_and_rates_change_at_once(configured: Configured) -> None:
    told = configured.reload('log_level = "debug"\nquota = { volumes = 3 }\nrate = { read = "6/1" }\n')
    assert told["changed"] == ["log_level", "quota", "rate"]
    with configured.daemon.client() as client:
        user = client.users.create("ada").user.name
        assert client.users.usage(user).volumes.limit == 3
        client.health()
    deadline = time.monotonic() + WAIT_S
    while not any(entry["level"] == "debug" for entry in configured.daemon.log()):
        assert time.monotonic() < deadline, "a look at the daemon's health is logged for who debugs"
        time.sleep(0.01)
    quiet = configured.reload('log_level = ["error", "hearth.server.reloading=info"]\n')
    assert quiet["changed"] == ["log_level", "quota", "rate"]
    seen = len(configured.daemon.log())
    with configured.daemon.client() as client:
        client.users.create("bob")
        assert client.users.usage("bob").volumes.limit == 32
    assert configured.reload("")["changed"] == ["log_level"]
    assert configured.daemon.log()[seen]["event"] == "reloaded"


def test_what_cannot_change_is_said_to_wait(configured: Configured) -> None:
    configured.reload("")
    told = configured.reload('pool = 7\nidle_stop = "3h"\n')
    assert told["changed"] == []
    configured.daemon.wait_for_event("some settings wait for a restart")
    (waits,) = [entry for entry in configured.daemon.log() if entry["event"] == "some settings wait for a restart"]
    assert waits["settings"] == ["idle_stop", "pool"]


@pytest.mark.parametrize("text", ["pol = 3", "pool = ", 'log_level = "debug"\npublic_zone = "example.org"'])
def test_a_wrong_file_changes_nothing(configured: Configured, text: str) -> None:
    told = configured.reload(text)
    assert (told["event"], told["level"]) == ("not reloaded", "error")
    assert told["resolution"]
    with configured.daemon.client() as client:
        assert client.health().status == "healthy"


def test_a_renewed_certificate_is_shown_and_a_broken_one_is_not(configured: Configured) -> None:
    before = configured.serial()
    certificate, _ = configured.authority.sign("server", "hearth", "IP:127.0.0.1")
    assert configured.serial() == before
    assert configured.reload("")["certificates"] == ["tls"]
    after = configured.serial()
    assert after != before
    certificate.write_text("no certificate")
    assert configured.reload("")["event"] == "not reloaded"
    assert configured.serial() == after
