"""What others call their things takes nobody's own names away, an administrator's neither."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import Conflict
from hearth.sdk.client import Client


@pytest.fixture
def others(client: Client, daemon: RunningDaemon) -> Iterator[tuple[Client, Client]]:
    made = [client.users.create(name) for name in ("first-stranger", "second-stranger")]
    with Client(daemon.url, made[0].secret) as first, Client(daemon.url, made[1].secret) as second:
        yield first, second
    for each in made:
        client.users.delete(each.user.id)


def test_an_administrators_own_sandbox_comes_first(client: Client, others: tuple[Client, Client]) -> None:
    with client.create(name="same") as own, others[0].create(name="same"), others[1].create(name=own.id):
        assert client.get("same").id == own.id
        assert client.get(own.id).name == "same"
        assert client.run("same", ["true"]).exit_code == 0


def test_an_administrators_own_volume_comes_first(client: Client, others: tuple[Client, Client]) -> None:
    own, theirs = client.create_volume("same", 16), others[0].create_volume("same", 32)
    assert client.volume("same").id == own.id
    assert client.resize_volume("same", 20).id == own.id
    client.delete_volume("same")
    assert client.volume("same").id == theirs.id
    others[0].delete_volume("same")


def test_a_name_of_several_others_is_nobodys_in_particular(client: Client, others: tuple[Client, Client]) -> None:
    with others[0].create(name="theirs") as first, others[1].create(name="theirs"):
        with pytest.raises(Conflict, match="several owners"):
            client.get("theirs")
        assert client.get(first.id).name == "theirs"
