"""Nobody learns of another's things: every operation of the API, with another user's ids and names, answers 404.

The answer is the same, word for word, as for what does not exist. An operation that is new fails here until this file
says what it is about.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.test_app import ask

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.operations import OPERATIONS
from hearth.config import DataDirectory
from hearth.image.store import ImageStore, Made
from hearth.model import ImageKind
from hearth.sdk.client import Client

NOBODYS = "no-such-thing"
NAME = "private"
SECRET = "PRIVATE"
SNAPSHOT = "cp-private00000"
HOSTS = ("machine-templates", "provision")
"""Kinds of things that are the host's, and so everybody's or for administrators alone."""
BODIES: dict[str, object] = {
    "update_sandbox": {"keep_hot": True},
    "start_sandbox": {},
    "fork_sandbox": {},
    "checkpoint_sandbox": {"name": "mine"},
    "save_image": {"name": "mine"},
    "pin_image": {"pinned": True},
    "exec": {"cmd": ["true"]},
    "publish_port": {"port": 80},
    "resume_snapshot": {},
    "resize_volume": {"size_mb": 32},
    "clone_volume": {"name": "mine"},
    "attach_volume": {"name": "mine", "mount": "/srv/x"},
    "change_user": {"admin": True},
    "create_key": {},
    "rotate_key": {},
    "feed_exec": {"data": "x"},
    "kill_exec": {},
    "change_quotas": {"sandboxes": None},
    "change_template": {"cpus": 2},
}
"""For operations on one thing that take a body: one that nothing is wrong with."""
PARAMETERS = {"port": "80", "session": "s1", "volume": NAME, "key": "key-000000000000"}
"""The second part of an address."""
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""Of a WebSocket."""
LISTS = {
    *("list_sandboxes", "list_all_ports", "list_all_publications", "list_snapshots", "list_endings", "list_volumes"),
    *("list_images", "list_machine_templates", "list_secrets", "list_audit"),
    "list_templates",
    *("list_jobs", "list_stats", "get_daemon"),
}
"""They show the caller's own; asked by another, the private things are not among them."""
ADMINISTRATORS: dict[str, object] = {
    "create_user": {"name": "eve"},
    "list_users": None,
    "rotate_master_key": {},
    "provision": {"image_url": "file:///a", "image_type": "raw", "volume_name": "vm", "volume_size_gb": 1},
    "list_provisioned": None,
    "get_provisioned": None,
    "grow_provisioned": {"volume_size_gb": 1},
    "delete_provisioned": None,
    "list_cached_images": None,
    "link_volume": {"name": "linked", "provisioned": "vm"},
    "prefetch_image": {"image_url": "file:///a"},
    "golden_image": {"name": "golden-root", "key": "0" * 64},
    "pin_cached_image": {"pinned": True},
    "delete_cached_image": None,
}
"""403 for everybody else."""
STREAMS = {"follow_events"}
"""They have no end; what they show to whom is tested with them."""
PUBLIC = {"health", "healthz", "livez", "readyz"}
MAKES: dict[str, list[object]] = {
    "create_sandbox": [
        {"name": "mine", "from": NAME},
        {"name": "mine", "from": "{sandbox}"},
        {"name": "mine", "from": SNAPSHOT},
        {"name": "mine", "secrets": [{"name": SECRET}]},
        {"name": "mine", "volumes": [{"name": NAME, "mount": "/srv/x"}]},
        {"name": "mine", "image": NAME},
        {"name": "mine", "template_id": NAME},
        {"name": "mine", "template_id": "{template}"},
    ],
    "create_template": [
        {"name": "mine", "image": "nobodys"},
        {"name": "mine", "secrets": [{"name": SECRET}]},
        {"name": "mine", "volumes": [{"name": NAME, "mount": "/srv/x"}]},
    ],
    "pull_image": [{"reference": "127.0.0.1/some/image", "secret": SECRET}],
    "import_image": [],
    "save_image_of": [{"sandbox": NAME, "name": "mine"}, {"sandbox": "{sandbox}", "name": "mine"}],
    "create_volume": [],
    "put_secret": [],
    "warm_machine_template": [],
}
"""They make something of the caller's own; with another's in the body it is 404."""


@dataclass(frozen=True, kw_only=True)
class Private:
    """A daemon with two users, of whom the one owns a thing of every kind. ``ids`` by the first part of an address."""

    daemon: RunningDaemon
    owner: str
    stranger: str
    ids: dict[str, list[str]]

    def ask(self, token: str, operation: Operation[Any, Any], path: str, body: object) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body).encode()
        headers = HANDSHAKE if operation.conversation is not None else {}
        status, _, answer = ask(self.daemon, operation.method, path, content, token=token, **headers)
        return status, answer


@pytest.fixture(scope="module")
def private() -> Iterator[Private]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon, daemon.client() as admin:
            owner, stranger = admin.users.create("owner"), admin.users.create("stranger")
            with Client(daemon.url, owner.secret) as theirs:
                sandbox, volume = theirs.create(name=NAME), theirs.create_volume(NAME, 16)
                theirs.secrets.put(SECRET, "value")
                theirs.ports.publish(NAME, 80, alias="private-alias")
                with theirs.create(name="ended") as ended:
                    pass
                _insert_snapshot(daemon, owner.user.id, sandbox.id)
                theirs.run(NAME, ["true"])
                body = json.dumps({"name": NAME, "secrets": [{"name": SECRET}]}).encode()
                _, _, template = ask(daemon, "POST", f"{PREFIX}/templates", body, token=owner.secret)
                jobs = [job["job_id"] for job in _items(daemon, owner.secret, "jobs")][:1]
                ids = {
                    "images": [_publish_image(data, owner.user.id), NAME],
                    "sandboxes": [sandbox.id, NAME],
                    "volumes": [volume.id, NAME],
                    "snapshots": [SNAPSHOT, NAME],
                    "endings": [ended.id, "ended"],
                    "secrets": [SECRET],
                    "templates": [template["id"], NAME],
                    "jobs": jobs,
                    "status": jobs,
                    "cancel": jobs,
                    "execs": [each["id"] for each in _items(daemon, owner.secret, f"sandboxes/{NAME}/execs")],
                    "users": [owner.user.id, "owner", "admin"],
                }
                yield Private(daemon=daemon, owner=owner.secret, stranger=stranger.secret, ids=ids)
                for each in theirs.list():
                    each.destroy()


def _items(daemon: RunningDaemon, token: str, path: str) -> list[dict[str, Any]]:
    """Give a page of what there is, or nothing where the daemon knows no such list."""
    _, _, answer = ask(daemon, "GET", f"{PREFIX}/{path}", token=token)
    return list(answer.get("items", []))


def _publish_image(data: DataDirectory, owner: str) -> str:
    async def build(directory: Path) -> Made:
        (directory / "content").write_text(owner)
        return Made(primary="content", facts={})

    store = ImageStore(data)
    return asyncio.run(store.obtain(ImageKind.ROOTFS, NAME, owner, build, lambda _: None, owner=owner)).id


def _insert_snapshot(daemon: RunningDaemon, owner: str, sandbox_id: str) -> None:
    """The development engine makes no checkpoints: here is the row of one."""
    connection = sqlite3.connect(daemon.data.database, timeout=30)
    connection.execute(
        "INSERT INTO snapshots SELECT ?, ?, ?, id, ?, NULL, ?, 'debian', 1, 256, 0, 'ready', NULL, host"
        " FROM sandboxes WHERE id = ?",
        (SNAPSHOT, owner, NAME, NAME, "2026-01-01 00:00:00.000000", sandbox_id),
    )
    connection.commit()
    connection.close()


ON_ONE_THING = [operation for operation in OPERATIONS if "{ref}" in operation.path]
OTHERS = {operation.name for operation in OPERATIONS if "{ref}" not in operation.path}


def kind_of(operation: Operation[Any, Any]) -> str:
    return operation.path.removeprefix(f"{PREFIX}/").split("/")[0]


def address(operation: Operation[Any, Any], reference: str) -> str:
    query = "?path=/tmp/hearth-test-no-such-file" if operation.path.endswith("/files") else ""
    return query_less(operation, reference) + query


def query_less(operation: Operation[Any, Any], reference: str) -> str:
    return re.sub(r"{(\w+)}", lambda match: PARAMETERS[match[1]], operation.path.replace("{ref}", reference))


@pytest.mark.parametrize("operation", ON_ONE_THING, ids=lambda operation: operation.name)
def test_anothers_thing_is_not_there(private: Private, operation: Operation[Any, Any]) -> None:
    kind = kind_of(operation)
    if kind in HOSTS:
        return
    assert kind in private.ids, f"say in this file what {operation.path} is about"
    if operation.has_body and operation.needs_body:
        assert operation.name in BODIES, f"say in this file what {operation.name} takes"
    body = BODIES.get(operation.name)
    status, unknown = private.ask(private.stranger, operation, address(operation, NOBODYS), body)
    assert status == 404, unknown
    if operation.method == "HEAD":  # which has no words
        for reference in private.ids[kind]:
            assert private.ask(private.stranger, operation, address(operation, reference), body) == (404, None)
        return
    for reference in private.ids[kind]:
        status, hidden = private.ask(private.stranger, operation, address(operation, reference), body)
        assert (status, hidden["code"]) == (404, "not_found")
        for word in ("error", "details", "resolution"):
            assert hidden[word].replace(reference, NOBODYS) == unknown[word]


def test_every_other_operation_is_accounted_for() -> None:
    known = LISTS | set(ADMINISTRATORS) | STREAMS | PUBLIC | set(MAKES)
    assert known >= OTHERS, "say in this file what a new operation shows to whom"


@pytest.mark.parametrize("name", sorted(LISTS & OTHERS))
def test_a_list_shows_nothing_of_anothers(private: Private, name: str) -> None:
    (operation,) = [each for each in OPERATIONS if each.name == name]
    status, answer = private.ask(private.stranger, operation, operation.path, None)
    assert status == 200
    if name == "list_audit":  # the caller's own attempts, in the caller's own words
        assert {entry["user"] for entry in answer["items"]} == {"stranger"}
        return
    shown = str(answer)
    hidden = {reference for references in private.ids.values() for reference in references} - {"admin"}
    assert [reference for reference in hidden if reference in shown] == []


@pytest.mark.parametrize("name", sorted(MAKES))
def test_what_is_made_is_not_made_of_anothers(private: Private, name: str) -> None:
    (operation,) = [each for each in OPERATIONS if each.name == name]
    for body in MAKES[name]:
        text = json.dumps(body).replace("{sandbox}", private.ids["sandboxes"][0])
        text = text.replace("{template}", private.ids["templates"][0])
        status, _, problem = ask(private.daemon, "POST", operation.path, text.encode(), token=private.stranger)
        assert (status, problem["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", sorted(ADMINISTRATORS))
def test_what_administrators_do_is_forbidden(private: Private, name: str) -> None:
    (operation,) = [each for each in OPERATIONS if each.name == name]
    status, problem = private.ask(private.stranger, operation, address(operation, NOBODYS), ADMINISTRATORS[name])
    assert (status, problem["code"]) == (403, "forbidden")


@pytest.mark.parametrize("way", ["proxy/80/", "tunnel/80"])
def test_no_way_leads_to_anothers_ports(private: Private, way: str) -> None:
    upgrade = ("Upgrade", "hearth-tunnel") if way.startswith("tunnel") else ("close", "")
    for reference in (*private.ids["sandboxes"], NOBODYS):
        path = f"{PREFIX}/sandboxes/{reference}/{way}"
        status, _, problem = ask(
            private.daemon, "GET", path, token=private.stranger, Connection=upgrade[0], Upgrade=upgrade[1]
        )
        assert (status, problem["code"]) == (404, "not_found")


def test_the_things_are_there_for_their_owner_after_all_that(private: Private) -> None:
    for kind, references in private.ids.items():
        for reference in references:
            if reference in ("admin", SECRET) or kind in ("jobs", "cancel"):
                continue
            status, _, view = ask(private.daemon, "GET", f"{PREFIX}/{kind}/{reference}", token=private.owner)
            assert status == 200, view
    with Client(private.daemon.url, private.owner) as theirs:
        assert [secret.name for secret in theirs.secrets.every()] == [SECRET]
