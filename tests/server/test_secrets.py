"""Secrets over the daemon's real socket: where their values are, and above all where they are not."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.test_app import ask

from hearth.errors import Conflict, Forbidden, HearthError, HostUnfit, InvalidInput, NotFound
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.client import Client
from hearth.sdk.secret_calls import SecretOptions

CANARY = "canary-5f0b1c9e77"
PRINT = ["sh", "-c", 'printf %s "$TOKEN"']
SOON_S = 30.0


@pytest.fixture(autouse=True)
def clean(client: Client) -> Iterator[None]:
    yield
    for secret in client.secrets.every():
        client.secrets.delete(secret.name)


def test_a_secret_is_kept_changed_listed_and_forgotten(client: Client) -> None:
    first = client.secrets.put("TOKEN", CANARY)
    second = client.secrets.put("TOKEN", "other")
    assert (second.name, second.created_at) == ("TOKEN", first.created_at)
    assert second.updated_at > first.updated_at
    client.secrets.put("_x1", b"\x00\xff")
    listed = client.secrets.every()
    assert [secret.name for secret in listed] == ["TOKEN", "_x1"]
    assert CANARY not in str(listed)
    client.secrets.delete("TOKEN")
    with pytest.raises(NotFound):
        client.secrets.delete("TOKEN")


def test_a_sandbox_has_its_secrets_as_variables_from_its_creation_on(client: Client) -> None:
    client.secrets.put("TOKEN", CANARY)
    wanted: list[SecretOptions] = [{"name": "TOKEN"}, {"name": "TOKEN", "env": "ALSO"}]
    with client.create(name="knows", secrets=wanted, env={"TOKEN": "overridden"}) as sandbox:
        assert sandbox.run([*PRINT[:2], 'printf "%s %s" "$TOKEN" "$ALSO"']).stdout == f"{CANARY} {CANARY}"
        client.secrets.put("TOKEN", "later")
        assert sandbox.run(PRINT).stdout == CANARY


def test_a_command_has_a_secret_and_the_next_one_has_not(client: Client, shared: str) -> None:
    client.secrets.put("TOKEN", CANARY)
    assert client.run("shared", PRINT, secrets=[{"name": "TOKEN"}]).stdout == CANARY
    with client.stream("shared", PRINT, secrets=[{"name": "TOKEN"}]) as running:
        assert b"".join(output.data for output in running) == CANARY.encode()
    assert client.run("shared", PRINT).stdout == ""


def test_a_narrow_key_gets_no_secret_out_by_a_command(client: Client, daemon: RunningDaemon, shared: str) -> None:
    client.secrets.put("TOKEN", CANARY)
    for options in ({"scope": "exec"}, {"scope": "exec", "sandbox": "shared"}):
        made = client.users.create_key(**options)  # type: ignore[arg-type]
        with Client(daemon.url, made.secret) as narrow, pytest.raises(Forbidden):
            narrow.run("shared", PRINT, secrets=[{"name": "TOKEN"}])
        client.users.revoke_key(made.key.id)


@pytest.mark.parametrize(
    ("secrets", "error"),
    [
        ([{"name": "MISSING"}], NotFound),
        ([{"name": "BINARY"}], InvalidInput),
        ([{"name": "TOKEN"}, {"name": "OTHER", "env": "TOKEN"}], InvalidInput),
        ([{"name": "TOKEN", "env": "A", "file": True}], InvalidInput),
        ([{"name": "TOKEN", "file": True}], Conflict),
        ([{"name": "no-name"}], InvalidInput),
        ([{"name": "TOKEN"}] * 17, InvalidInput),
    ],
)
def test_uses_that_cannot_be_are_refused_before_anything_is_made(
    client: Client, secrets: list[SecretOptions], error: type[HearthError]
) -> None:
    client.secrets.put("TOKEN", CANARY)
    client.secrets.put("OTHER", "x")
    client.secrets.put("BINARY", b"\xff\x00")
    with pytest.raises(error) as refused:
        client.create(name="never", secrets=secrets)
    assert CANARY not in str(refused.value)
    with pytest.raises(NotFound):
        client.get("never")


@pytest.mark.parametrize(
    "body",
    [
        f'{{"name": "bad-name", "value": "{CANARY}"}}',
        f'{{"name": "TOKEN", "value": ["{CANARY}"]}}',
        f'{{"name": "TOKEN", "value": "{CANARY}", "encoding": "base64"}}',
        f'{{"name": "TOKEN", "value": "{CANARY}", "encoding": "rot13"}}',
        f'{{"name": "TOKEN", "value": "{CANARY}"',
        f'{{"name": "TOKEN", "value": "{CANARY * 4000}"}}',
        f'{{"name": "TOKEN", "value": "{CANARY}", "more": 1}}',
        '{"name": "TOKEN", "value": ""}',
    ],
)
def test_a_refusal_does_not_repeat_the_value(daemon: RunningDaemon, client: Client, body: str) -> None:
    status, _, problem = ask(daemon, "POST", "/api/v1/secrets", body.encode(), token=daemon.token)
    assert status == 400
    assert CANARY not in str(problem)
    assert client.secrets.every() == []


def test_a_value_is_in_no_log_file_process_or_answer() -> None:
    """Everything the daemon has and says, with its log at its most talkative, holds the canary nowhere in clear."""
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--log-level", "debug") as daemon, daemon.client() as client:
            client.secrets.put("TOKEN", CANARY)
            client.secrets.put("BINARY", CANARY.encode() + b"\xff")
            with pytest.raises(InvalidInput):
                client.create(name="never", secrets=[{"name": "BINARY"}])
            with pytest.raises(InvalidInput):
                client.secrets.put("TOKEN", (CANARY * 2000).encode())
            sandbox = client.create(name="knows", secrets=[{"name": "TOKEN"}])
            assert sandbox.run(PRINT).stdout == CANARY
            with client.stream("knows", ["sleep", "60"], secrets=[{"name": "TOKEN"}]):
                lines = _command_lines()
            views = [client.list(), sandbox.refresh().view, client.secrets.every(), client.users.usage()]
            assert "hearth.server" in lines
            assert CANARY not in lines
            assert CANARY not in str(views)
            sandbox.destroy()
            assert CANARY not in str(client.endings())
        forms = [CANARY.encode(), base64.b64encode(CANARY.encode()).rstrip(b"=")]
        files = [path for path in data.root.rglob("*") if path.is_file() and not path.is_relative_to(data.machines)]
        assert {"hearth.db", "log.jsonl", "master.key"} <= {path.name for path in files}
        assert [path.name for path in files if any(form in path.read_bytes() for form in forms)] == []


def test_the_master_key_is_private_changed_and_missed(daemon: RunningDaemon, client: Client, shared: str) -> None:
    client.secrets.put("TOKEN", CANARY)
    path = daemon.data.master_key
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert client.secrets.rotate_master_key() >= 1
    after = path.read_bytes()
    assert after != before
    assert client.run("shared", PRINT, secrets=[{"name": "TOKEN"}]).stdout == CANARY
    path.write_bytes(before)
    try:
        for deed in (
            lambda: client.run("shared", PRINT, secrets=[{"name": "TOKEN"}]),
            lambda: client.create(name="never", secrets=[{"name": "TOKEN"}]),
            client.secrets.rotate_master_key,
        ):
            with pytest.raises(HostUnfit, match="master key") as lost:
                deed()
            assert str(path) in str(lost.value)
    finally:
        path.write_bytes(after)
    assert client.run("shared", PRINT, secrets=[{"name": "TOKEN"}]).stdout == CANARY


def test_a_daemon_without_its_master_key_says_so_at_its_start_and_serves_the_rest() -> None:
    with data_directory() as data:
        publish_images(data)
        aside = data.root / "elsewhere.key"
        with running_daemon(data, "--master-key", str(aside)) as daemon, daemon.client() as client:
            client.secrets.put("TOKEN", CANARY)
            assert aside.stat().st_mode & 0o777 == 0o600
            assert not data.master_key.exists()
        with running_daemon(data) as daemon, daemon.client() as client:
            daemon.wait_for_event("secrets cannot be opened")
            with client.create(name="plain") as plain, pytest.raises(HostUnfit):
                assert plain.run(["true"]).exit_code == 0
                client.secrets.put("OTHER", "x")
            assert not data.master_key.exists()
            client.secrets.delete("TOKEN")
            client.secrets.put("OTHER", "x")
            assert data.master_key.exists()


def test_the_command_line_reads_values_from_stdin_alone(daemon: RunningDaemon, client: Client, tmp_path: Path) -> None:
    told = run_cli(daemon.environment, "secret", "set", "TOKEN", stdin=f"{CANARY}\n".encode())
    assert (told.returncode, told.stdout) == (0, b"")
    ran = run_cli(daemon.environment, "exec", "--secret", "T=TOKEN", "shared", "--", "sh", "-c", 'printf %s "$T"')
    assert ran.stdout == CANARY.encode()
    value = tmp_path / "value"
    value.write_bytes(b"\x00\x01")
    assert run_cli(daemon.environment, "secret", "set", "BINARY", "--file", str(value)).returncode == 0
    assert [line.split()[0] for line in run_cli(daemon.environment, "secrets").stdout.decode().splitlines()] == [
        "NAME",
        "TOKEN",
        "BINARY",
    ]
    assert run_cli(daemon.environment, "secret", "set", "EMPTY").returncode == 1
    assert b"sealed anew" in run_cli(daemon.environment, "secret", "rotate-master-key").stdout
    made = run_cli(daemon.environment, "create", "knows", "--secret", "TOKEN")
    assert made.returncode == 0
    assert client.run("knows", PRINT).stdout == CANARY
    client.destroy("knows")
    refused = run_cli(daemon.environment, "secret", "delete", "TOKEN")
    assert (refused.returncode, b"--yes" in refused.stderr) == (1, True)
    assert run_cli(daemon.environment, "secret", "delete", "--yes", "TOKEN", "BINARY").returncode == 0


def test_neither_the_command_line_nor_the_sdk_loads_the_library() -> None:
    program = (
        "import sys, hearth.sdk.client, hearth.sdk.secrets, hearth.cli.commands.secret; print('nacl' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"False\n"


async def test_the_asynchronous_client_does_the_same(daemon: RunningDaemon) -> None:
    async with AsyncClient(daemon.url, daemon.token) as client:
        await client.secrets.put("TOKEN", CANARY)
        assert [secret.name for secret in await client.secrets.every()] == ["TOKEN"]
        assert await client.secrets.rotate_master_key() >= 1
        await client.secrets.delete("TOKEN")


def _command_lines() -> str:
    """Give the command lines of all processes of this host, once more than one program runs."""
    deadline_s = time.monotonic() + SOON_S
    while time.monotonic() < deadline_s:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        if any("sleep 60" in line for line in found):
            return "\n".join(found)
        time.sleep(0.02)
    raise AssertionError("the command did not start")
