"""`hearth attack` on real machines: it holds under either policy, and says so when isolation is really taken away."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.network.nameserver import nameserver
from tests.network.stage import DNS_SERVER, HOST_ADDRESS, Stage, inside, stage
from tests.server.daemon import RunningDaemon, run_cli, running_daemon

from hearth.config import DataDirectory
from hearth.host import namespaces
from hearth.host.directory import load_tag
from hearth.network.plan import hub_name, namespace_name
from hearth.sdk.client import Client

LIMIT_S = 900.0
pytestmark = pytest.mark.timeout(1200)
Report = dict[str, Any]
PLAIN = ("metadata", "host", "private", "strangers", "names", "world")
"""What a policy decides; the rest is the same under each."""


def attack(daemon: RunningDaemon, *words: str) -> tuple[int, Report]:
    done = run_cli(daemon.environment, "attack", "dev", "--yes", "--json", *words, timeout_s=LIMIT_S)
    assert done.stdout, done.stderr.decode()
    return done.returncode, json.loads(done.stdout)


def of_verdict(report: Report, verdict: str) -> dict[str, str]:
    """Give the probes of a verdict with what came of them."""
    return {
        each["id"]: f"{each['outcome']}; {each['proof']}" for each in report["probes"] if each["verdict"] == verdict
    }


async def on_stage(data: DataDirectory, work: Callable[[RunningDaemon, Stage], None]) -> None:
    """Run a daemon whose world is a namespace of the test's own; the world is served by this thread."""
    async with stage() as scene:
        await nameserver(scene, {"api.example.com": ["1.2.3.4"]})
        words = ("--engine", "qemu", "--pool", "0", "--uplink", f"netns:{scene.host}", "--dns", DNS_SERVER)

        def run() -> None:
            with running_daemon(data, *words) as daemon:
                work(daemon, scene)

        await asyncio.to_thread(run)
    assert namespaces.list_names(f"hearth-{load_tag(data)}") == set()


def assert_held(status: int, report: Report) -> None:
    assert of_verdict(report, "BROKEN") == {}
    assert of_verdict(report, "unproven") == {}
    assert of_verdict(report, "not tried").keys() <= {"flood-flows"}, "which a slow guest cannot do"
    assert (status, report["held"], report["observed"]) == (0, True, "yes")


def assert_cleared_up(client: Client) -> None:
    assert [each.name for each in client.list()] == ["dev"]
    assert [each.name for each in client.users.every()] == ["admin"]


@contextlib.contextmanager
def another_owner(daemon: RunningDaemon, client: Client) -> Iterator[Path]:
    """Make a user with a sandbox, so that no bridge comes or goes with the attack: a new one writes the rules anew.

    Gives a file with the user's key.
    """
    made = client.users.create("bob")
    key = daemon.data.root / "bob.key"
    key.write_text(made.secret)
    with Client(daemon.url, made.secret) as theirs, theirs.create(name="kept", keep_hot=True):
        yield key
    client.users.delete(made.user.id)


async def test_a_closed_sandbox_tries_everything_and_all_of_it_holds(slept_in: DataDirectory) -> None:
    def work(daemon: RunningDaemon, scene: Stage) -> None:
        with daemon.client() as client, client.create(name="dev", keep_hot=True):
            status, report = attack(daemon, "--also", f"{HOST_ADDRESS}:80")
            assert_held(status, report)
            assert_cleared_up(client)
        assert (report["policy"], report["sandbox"]) == ("deny", "dev")
        allowed = set(of_verdict(report, "allowed"))
        assert allowed == {
            *("gateway-dns", "friend-dial", "friend-udp", "target-from-friend", "stranger-own-gateway"),
            *("friend-name", "frame-honest", "tiny-control", "after-frames", "after-floods", "proxy-plain"),
        }
        assert report["counts"]["held"] > 100

    await on_stage(slept_in, work)


async def test_an_open_sandbox_reaches_the_world_and_nothing_else(slept_in: DataDirectory) -> None:
    def work(daemon: RunningDaemon, scene: Stage) -> None:
        with daemon.client() as client, client.create(name="dev", keep_hot=True, net_policy={"default": "public"}):
            only = [word for group in PLAIN for word in ("--only", group)]
            status, report = attack(daemon, *only, "--also", f"{HOST_ADDRESS}:80")
            assert_held(status, report)
            assert_cleared_up(client)
        allowed = set(of_verdict(report, "allowed"))
        assert {"world-9-9-9-9-53", "name-txt-udp", "tunnel-txt"} <= allowed
        held = set(of_verdict(report, "held"))
        uplink = scene.settings.uplink
        assert uplink is not None
        assert {"metadata-169-254-169-254", "private-10-0-0-1", "stranger-1024", "also-203-0-113-1-80"} <= held
        assert any(each.startswith("host-198-") for each in held), "its link to the host is attacked, too"

    await on_stage(slept_in, work)


async def test_isolation_that_was_taken_away_is_told(slept_in: DataDirectory) -> None:
    def work(daemon: RunningDaemon, scene: Stage) -> None:
        tag = load_tag(slept_in)
        with (
            daemon.client() as client,
            client.create(name="dev", keep_hot=True) as dev,
            another_owner(daemon, client) as key,
        ):
            inside(hub_name(tag), "nft", "flush", "ruleset")
            words = ("--other-key", str(key), "--only", "strangers", "--only", "metadata")
            status, report = attack(daemon, *words)
            broken = of_verdict(report, "BROKEN")
            assert (status, report["held"]) == (1, False)
            assert {"stranger-47600", "stranger-udp", "target-from-stranger-47600"} <= set(broken), report
            assert "it answered" in broken["stranger-47600"]
            assert "metadata-169-254-169-254" in of_verdict(report, "held"), "that is refused nearer to the guest"

            inside(namespace_name(tag, dev.id), "nft", "flush", "ruleset")
            status, report = attack(daemon, "--other-key", str(key), "--only", "frames")
            broken = of_verdict(report, "BROKEN")
            assert status == 1
            assert "the host handed it on" in broken["spoofed-mac"], report
            assert [each.name for each in client.list()] == ["dev", "kept"]

    await on_stage(slept_in, work)


async def test_what_a_sandbox_alone_cannot_prove_is_not_tried(slept_in: DataDirectory) -> None:
    def work(daemon: RunningDaemon, scene: Stage) -> None:
        with daemon.client() as client, client.create(name="dev", keep_hot=True):
            refused = run_cli(daemon.environment, "attack", "dev")
            assert refused.returncode == 1
            assert b"say --yes" in refused.stderr
            own_key = ("--other-key", str(daemon.data.admin_key))
            refused = run_cli(daemon.environment, "attack", "dev", "--yes", *own_key, timeout_s=LIMIT_S)
            assert (refused.returncode, refused.stdout) == (1, b"")
            assert b"the other owner is the sandbox's own" in refused.stderr
            status, report = attack(daemon, "--no-neighbours", "--only", "strangers", "--only", "metadata")
            assert_cleared_up(client)
        assert status == 0
        left_out = of_verdict(report, "not tried")
        assert "stranger-1024" in left_out
        assert "metadata-v6-fd00-ec2--254" in left_out
        assert set(of_verdict(report, "held")) >= {"metadata-169-254-169-254", "metadata-udp"}

    await on_stage(slept_in, work)
