"""`hearth volume`, and volumes among the words of `hearth create`."""

from __future__ import annotations

import json

import pytest
from tests.cli.test_sleep import run
from tests.server.daemon import RunningDaemon

from hearth.cli.volumes import read_new_volume, read_place, read_size
from hearth.errors import InvalidInput
from hearth.sdk.client import Sandbox


@pytest.mark.parametrize(
    ("text", "mib"),
    [("16", 16), ("512M", 512), ("512mib", 512), ("20G", 20 * 1024), ("20gb", 20 * 1024), ("1T", 1024 * 1024)],
)
def test_sizes_are_read_in_mib(text: str, mib: int) -> None:
    assert read_size(text) == mib


@pytest.mark.parametrize("text", ["", "G", "1.5G", "-1", "16K", "1 G", "1e3", "0x10"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_size(text, what="--new-volume")
    assert refused.value.field == "--new-volume"


def test_places_are_read_with_their_mode() -> None:
    assert read_place("data:/srv/data") == {"name": "data", "mount": "/srv/data"}
    assert read_place("data:/srv/a:b:ro") == {"name": "data", "mount": "/srv/a:b", "read_only": True}
    assert read_new_volume("data:2G:/srv/data") == {"name": "data", "size_mb": 2048, "mount": "/srv/data"}


@pytest.mark.parametrize("text", ["", "data", "data:", ":/srv", "data:srv", "data/srv"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_place(text)
    with pytest.raises(InvalidInput):
        read_new_volume(text)


def test_a_volume_is_made_listed_shown_grown_copied_and_deleted(daemon: RunningDaemon) -> None:
    assert run(daemon, "volume", "create", "data", "16M") == (0, "data\n", "")
    assert run(daemon, "volume", "resize", "data", "32M") == (0, "data\n", "")
    assert run(daemon, "volume", "clone", "data", "copy") == (0, "copy\n", "")
    status, table, _ = run(daemon, "volumes")
    assert (status, [line.split()[0] for line in table.splitlines()]) == (0, ["NAME", "data", "copy"])
    shown = json.loads(run(daemon, "volume", "inspect", "--json", "data")[1])
    assert (shown["name"], shown["size_mb"], shown["attached"]) == ("data", 32, [])
    assert "32 MiB" in run(daemon, "volume", "inspect", "data")[1]
    status, _, err = run(daemon, "volume", "delete", "data")
    assert (status, "--yes" in err) == (1, True)
    assert run(daemon, "volume", "delete", "--yes", "data", "copy") == (0, "data\ncopy\n", "")
    assert json.loads(run(daemon, "volume", "list", "--json")[1]) == []


@pytest.mark.parametrize(
    "words",
    [
        ("volume", "attach", "shared", "data:/srv/data"),
        ("volume", "detach", "shared", "data"),
        ("create", "--new-volume", "data:16M:/srv/data", "fresh"),
    ],
)
def test_where_machines_take_no_volumes_that_is_said(
    daemon: RunningDaemon, sandbox: Sandbox, words: tuple[str, ...]
) -> None:
    status, out, err = run(daemon, *words)
    assert (status, out) == (1, "")
    assert "take no volumes" in err
