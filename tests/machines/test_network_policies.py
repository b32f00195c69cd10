"""Sandboxes of a daemon on their owners' networks: the policy holds through edits, sleep, copies and crashes.

The world they come to is a namespace of the test's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.machines.sleepers import QUIET, WAIT_S, VmHouse, opened, until
from tests.network.nameserver import nameserver
from tests.network.stage import DNS_SERVER, HOST_ADDRESS, PUBLIC, Stage, inside, ip, stage
from tests.server.daemon import run_cli, running_daemon

from hearth.config import DataDirectory, Settings
from hearth.control.egress import Attempt
from hearth.errors import Conflict
from hearth.host import namespaces
from hearth.host.directory import load_tag
from hearth.model import Sandbox, SandboxChanges, SandboxSpec, User
from hearth.network.plan import hub_name, namespace_name
from hearth.sdk.client import Client

DESCRIPTORS = Path("/proc/self/fd")
NAME = "api.example.com"
SERVER = """
import socket, sys
server = socket.create_server(("", 8000))
while True:
    caller, _ = server.accept()
    caller.sendall(sys.argv[1].encode())
    caller.close()
"""
CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 30) as stream:
        print(stream.recv(99).decode())
except OSError as error:
    print(type(error).__name__)
"""
REFUSED, UNKNOWN = "ConnectionRefusedError", "gaierror"


@dataclass(frozen=True, kw_only=True)
class Town:
    """A daemon's house and the world beyond it."""

    house: VmHouse
    scene: Stage

    async def call(self, sandbox: Sandbox, host: str, port: int = 80) -> str:
        """Tell how a call from a sandbox goes."""
        said, _ = await self.house.output(sandbox.id, "python3", "-c", CALL, host, str(port))
        return said.decode().strip()

    async def serve(self, sandbox: Sandbox) -> None:
        """Have a sandbox say its name on port 8000."""
        name = sandbox.spec.name
        script = f"setsid python3 -c '{SERVER}' {name} >/dev/null 2>&1 </dev/null &"
        await self.house.shell(sandbox, script)
        await until(lambda: self._is_up(sandbox), "the server listens")

    async def _is_up(self, sandbox: Sandbox) -> bool:
        return await self.call(sandbox, "127.0.0.1", 8000) == sandbox.spec.name

    def attempts(self, sandbox: Sandbox) -> list[Attempt]:
        return list(self.house.sandboxes.networking.egress(sandbox).tried.attempts)

    async def refused(self, sandbox: Sandbox, matches: Callable[[Attempt], bool]) -> Attempt:
        """Wait until an attempt is told of."""
        await until(lambda: any(map(matches, self.attempts(sandbox))), "an attempt is told of")
        return next(filter(matches, self.attempts(sandbox)))


def open_descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


def settings_for(scene: Stage, settings: Settings = QUIET) -> Settings:
    return replace(settings, uplink=f"netns:{scene.host}", dns_servers=(DNS_SERVER,))


@contextlib.asynccontextmanager
async def town(data: DataDirectory, settings: Settings = QUIET) -> AsyncIterator[Town]:
    async with stage() as scene:
        await nameserver(scene, {NAME: [PUBLIC[2]]})
        async with opened(data, settings_for(scene, settings)) as house:
            try:
                yield Town(house=house, scene=scene)
            finally:
                await house.destroy_all()
        assert hub_name(load_tag(data)) not in namespaces.list_names("hearth-")
        assert "hearth-" not in ip(scene.host, "-br", "link")


async def test_a_policy_holds_through_edits_sleep_and_copies(slept_in: DataDirectory) -> None:
    async with town(slept_in) as place:
        house, call = place.house, place.call
        web = await house.create("web", net_policy={"names": [NAME]})
        db = await house.create("db")
        stranger = User(id="user-bob", name="bob")
        await house.sandboxes.store.users.create(stranger)
        spy = (await house.sandboxes.create(stranger, SandboxSpec(name="spy"))).sandbox
        address = str(house.sandboxes.networking.address(db))
        await place.serve(db)

        assert await call(web, "db.hearth", 8000) == "db"
        assert await call(web, "db", 8000) == "db"
        assert (await call(spy, address, 8000), await call(spy, "db.hearth", 8000)) == (REFUSED, UNKNOWN)
        assert await call(web, NAME) == f"world {PUBLIC[2]}"
        assert (await call(db, NAME), await call(db, PUBLIC[0]), await call(db, HOST_ADDRESS)) == (
            UNKNOWN,
            REFUSED,
            REFUSED,
        )
        assert (await place.refused(db, lambda each: str(each.event.address) == PUBLIC[0])).event.rule == "deny"
        assert (await place.refused(db, lambda each: each.event.host == NAME)).event.rule == "name"

        db = await house.sandboxes.update(house.admin, "db", SandboxChanges(net_policy={"base": "public"}))
        assert await call(db, PUBLIC[0]) == f"world {PUBLIC[0]}"
        db = await house.sandboxes.update(house.admin, "db", SandboxChanges(name="store", net_policy={"base": "deny"}))
        assert await call(db, PUBLIC[0]) == REFUSED
        assert (await call(web, "store.hearth", 8000), await call(web, "db.hearth", 8000)) == ("db", UNKNOWN)

        await house.stop(web)
        assert house.sandboxes.networking.address(web) is None
        assert (await call(web, NAME), await call(web, PUBLIC[0])) == (f"world {PUBLIC[2]}", REFUSED)
        assert await call(web, "store.hearth", 8000) == "db"

        (copy,) = await house.sandboxes.fork(house.admin, "web", name="copy")
        assert copy.spec.net_policy == web.spec.net_policy
        assert house.sandboxes.networking.address(copy) != house.sandboxes.networking.address(web)
        for each in (web, copy):
            assert (await call(each, NAME), await call(each, PUBLIC[0])) == (f"world {PUBLIC[2]}", REFUSED)
        wider = SandboxSpec(name="wider", net_policy={"base": "public"})
        with pytest.raises(Conflict):
            await house.sandboxes.create(house.admin, wider, from_="web")
        await house.sandboxes.destroy(stranger, "spy")


async def test_a_claimed_machine_gets_its_owners_network_and_one_in_the_pool_has_none(slept_in: DataDirectory) -> None:
    async with town(slept_in, replace(QUIET, pool_ready=1)) as place:
        house = place.house
        await house.create("first", net_policy={"base": "public"})
        await until(lambda: house.sandboxes.pool.sizes()["ready"] == 1, "one is ready")
        tag = load_tag(slept_in)
        (kept,) = await house.sandboxes.workshop.network.list() - {(await house.sandboxes.get(house.admin, "first")).id}
        assert "default" not in ip(namespace_name(tag, kept), "route")
        assert f"alias {kept}" not in ip(hub_name(tag), "link")

        claimed = await house.create("second", net_policy={"base": "public"})
        assert claimed.id == kept
        assert await place.call(claimed, PUBLIC[0]) == f"world {PUBLIC[0]}"
        await place.serve(claimed)
        first = await house.sandboxes.get(house.admin, "first")
        assert await place.call(first, "second.hearth", 8000) == "second"


async def test_after_a_kill_the_next_daemon_puts_the_policy_into_force_again(slept_in: DataDirectory) -> None:
    async with stage() as scene:
        await nameserver(scene, {NAME: [PUBLIC[2]]})
        words = ("--engine", "qemu", "--pool", "0", "--uplink", f"netns:{scene.host}", "--dns", DNS_SERVER)
        # On a thread: the world is served by this one.
        await asyncio.to_thread(_crash_and_look, slept_in, words)


def _crash_and_look(data: DataDirectory, words: tuple[str, ...]) -> None:
    with running_daemon(data, *words) as first, first.client() as client:
        dev = client.create(name="dev", net_policy={"allow_cidrs": [f"{PUBLIC[0]}/32"]})
        first.process.kill()
        first.process.wait()
    inside(namespace_name(load_tag(data), dev.id), "nft", "flush", "ruleset")
    with running_daemon(data, *words) as second, second.client() as again:
        found = again.get("dev").view
        assert (found.address, found.state) == (dev.view.address, "running")
        assert found.net_policy is not None and found.net_policy.allow_cidrs == [f"{PUBLIC[0]}/32"]
        _check_from_outside(second.environment, again)


def _wait(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so: the daemon hears of a packet beside everything else that it does."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"


def _check_from_outside(environment: dict[str, str], client: Client) -> None:
    """Look at it as a user does."""

    def call(host: str) -> str:
        return client.run("dev", ["python3", "-c", CALL, host, "80"]).stdout.strip()

    assert (call(PUBLIC[0]), call(PUBLIC[1]), call(NAME)) == (f"world {PUBLIC[0]}", REFUSED, UNKNOWN)

    def told() -> set[tuple[str, str, str | None]]:
        shown = json.loads(run_cli(environment, "egress", "dev", "--json").stdout)
        return {(each["rule"], each["host"], each["address"]) for each in shown["attempts"]}

    def allow_list() -> list[str]:
        return run_cli(environment, "egress", "dev", "--allow-list").stdout.decode().split()

    _wait(lambda: told() >= {("deny", "", PUBLIC[1]), ("name", NAME, None)}, "attempts are told of")

    assert run_cli(environment, "edit", "dev", "--audit").returncode == 0
    assert (call(PUBLIC[1]), call(NAME)) == (f"world {PUBLIC[1]}", f"world {PUBLIC[2]}")
    _wait(lambda: set(allow_list()[3::2]) == {NAME, f"{PUBLIC[0]}/32", f"{PUBLIC[1]}/32"}, "all it tried is listed")
    options = allow_list()
    assert options[:2] == ["--net", "deny"]
    assert run_cli(environment, "edit", "dev", "--no-audit", *options).returncode == 0
    assert (call(NAME), call(PUBLIC[1]), call("8.8.4.4")) == (f"world {PUBLIC[2]}", f"world {PUBLIC[1]}", REFUSED)
