"""`hearth config` and `hearth setup --client` as a user types them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, run_cli

SECRET = "canary-7c1e90"


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """An environment of a user who has no configuration yet."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEARTH_")}
    return {**kept, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "HEARTH_CONFIG": "/dev/null"}


def test_each_value_is_shown_with_who_said_it_and_no_secret(alone: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "hearth.toml"
    file.write_text(f'idle_stop = "2h"\nredis_url = "redis://:{SECRET}@127.0.0.1"\n')
    file.chmod(0o600)
    environment = {**alone, "HEARTH_CONFIG": str(file), "PORT": "9000"}
    plain = run_cli(environment, "config", "show")
    rows = {words[0]: words[1:] for words in map(str.split, plain.stdout.decode().splitlines())}
    assert plain.returncode == 0
    assert rows["idle_stop"] == ['"2h"', "file:", str(file)]
    assert rows["redis_url"][0] == "********"
    assert rows["pool"] == ["1", "default"]
    found = json.loads(run_cli(environment, "config", "show", "--json").stdout)
    assert found["file"] == str(file)
    assert found["settings"]["listen"]["value"] == ["127.0.0.1:9000"]
    assert found["settings"]["listen"]["source"] == "environment"
    assert SECRET not in plain.stdout.decode() + json.dumps(found)


def test_a_file_is_checked_as_the_daemon_would(alone: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "hearth.toml"
    for text, status, said in (
        ('pool = 2\nidle_stop = "2h"\n', 0, "2 settings, all right"),
        ("pol = 2", 1, "'pool'"),
        ('tls_cert = "/nope.pem"', 1, "--tls-key"),
        ('listen = ["127.0.0.1:0"]\ntls_cert = "/nope.pem"\ntls_key = "/nope.pem"', 1, "/nope.pem"),
        ('listen = ["0.0.0.0:80"]', 1, str(file)),
        ('public_zone = "example.org"', 1, "--public-listen"),
    ):
        file.write_text(text)
        done = run_cli(alone, "config", "check", str(file))
        assert (done.returncode, said in (done.stdout + done.stderr).decode()) == (status, True), text
        assert b"Traceback" not in done.stderr
    default = run_cli(alone, "config", "default")
    file.write_bytes(default.stdout)
    assert run_cli(alone, "config", "check", str(file)).returncode == 0


def test_a_client_is_set_up_once_and_calls_the_daemon_from_then_on(
    daemon: RunningDaemon, alone: dict[str, str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(f"{daemon.token}\n")
    done = run_cli(alone, "setup", "--client", daemon.url, "--token-file", str(token))
    assert (done.returncode, b"you are admin" in done.stdout) == (0, True)
    assert daemon.token.encode() not in done.stdout + done.stderr
    kept = tmp_path / "config/hearth/client.toml"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert run_cli(alone, "list").returncode == 0
    shown = run_cli(alone, "config", "client").stdout.decode()
    assert (daemon.url in shown, daemon.token in shown, str(kept) in shown) == (True, False, True)


def test_a_client_that_is_refused_remembers_nothing(
    daemon: RunningDaemon, alone: dict[str, str], tmp_path: Path
) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("hk_" + "0" * 64)
    for url, words in (
        (daemon.url, ("--token-file", str(wrong))),
        (daemon.url, ("--token-file", str(tmp_path / "nope"))),
        (daemon.url, ()),
        (f"unix:{tmp_path}/nobody.sock", ("--token-file", str(wrong))),
    ):
        done = run_cli(alone, "setup", "--client", url, *words)
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr
    assert not (tmp_path / "config").exists()


def test_what_the_setup_would_make_is_looked_for_without_making_it(alone: dict[str, str], tmp_path: Path) -> None:
    data = tmp_path / "data"
    done = run_cli({**alone, "HEARTH_DATA": str(data)}, "setup", "--check")
    assert (done.returncode, done.stderr.count(b"hearth setup"), data.exists()) == (1, 3, False)


def test_the_doctor_tells_what_is_wrong_with_the_configuration(alone: dict[str, str]) -> None:
    done = run_cli({**alone, "HEARTH_POOL": "many"}, "doctor", "--json")
    (check,) = [each for each in json.loads(done.stdout)["checks"] if each["name"] == "configuration"]
    assert (done.returncode, check["status"], "HEARTH_POOL" in check["finding"]) == (1, "failed", True)
