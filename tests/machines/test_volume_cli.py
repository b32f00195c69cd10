"""Volumes from the command line, in real machines."""

from __future__ import annotations

import json

from tests.cli.test_sleep import run
from tests.server.daemon import RunningDaemon


def test_a_volume_goes_from_one_sandbox_to_the_next(house: RunningDaemon) -> None:
    assert run(house, "create", "one", "--new-volume", "data:16M:/srv/data") == (0, "one\n", "")
    try:
        assert run(house, "exec", "one", "--", "sh", "-c", "echo kept > /srv/data/note")[0] == 0
        (volume,) = json.loads(run(house, "inspect", "--json", "one")[1])["volumes"]
        assert (volume["name"], volume["mount"], volume["read_only"]) == ("data", "/srv/data", False)
        status, _, err = run(house, "volume", "delete", "--yes", "data")
        assert (status, "attached to one (read-write)" in err) == (1, True)
    finally:
        run(house, "destroy", "--yes", "one")
    assert run(house, "create", "two", "--volume", "data:/mnt/data:ro") == (0, "two\n", "")
    try:
        assert run(house, "exec", "two", "cat", "/mnt/data/note") == (0, "kept\n", "")
        assert run(house, "volume", "detach", "two", "data") == (0, "", "")
        assert run(house, "exec", "two", "ls", "/mnt/data") == (0, "", "")
        assert run(house, "volume", "attach", "two", "data:/mnt/data") == (0, "", "")
        assert "/mnt/data, read-write" in run(house, "volume", "inspect", "data")[1]
        assert run(house, "exec", "two", "--", "sh", "-c", "echo more >> /mnt/data/note")[0] == 0
    finally:
        run(house, "destroy", "--yes", "two")
    assert run(house, "volume", "delete", "--yes", "data") == (0, "data\n", "")
